"""What both webhook plugins are: they see every request but those about webhooks and policies themselves, ask through
one caller, count what came of it, and note a webhook that failed and was let pass.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/generic, pkg/admission/metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from berg.apiserver.admission import sight
from berg.apiserver.admission.figures import ConditionFigures
from berg.apiserver.admission.interface import Api, Attributes, Plugin
from berg.apiserver.admission.webhook.caller import Caller
from berg.apiserver.admission.webhook.figures import Figures
from berg.apiserver.admission.webhook.hooks import CallFailed, Hook
from berg.apiserver.admission.webhook.review import Denied
from berg.machinery.status import ApiError, Obj

T = TypeVar("T")


class WebhookPlugin(Plugin):
    subresources = None
    step: str
    """what metrics call the plugin"""
    failed_open: str
    """the audit annotation of a failure that was let pass, but for round and index"""

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self.caller = Caller(api, self.config)
        self.figures = Figures(self.metrics, self.step)
        self.conditions = ConditionFigures(self.metrics, "webhook", self.step)

    def handles(self, a: Attributes) -> bool:
        return not sight.is_configuration(a)

    async def close(self) -> None:
        await self.caller.close()

    async def outcome(self, a: Attributes, hook: Hook, call: Awaitable[T], turn: int, index: int) -> T | None:
        """What `call` gives; None: it failed and the failure policy lets that pass. Raises ApiError."""
        started = perf_counter()
        try:
            answer = await call
        except CallFailed as e:
            self.figures.failed(a, e, perf_counter() - started)
            if not hook.ignores_failure:
                raise e.error() from None
            a.annotate(f"{self.failed_open}/round_{turn}_index_{index}", hook.name)
            return None
        except Denied as e:
            self.figures.denied(a, hook, perf_counter() - started, e.code)
            raise
        except ApiError:
            self.figures.unasked(a, hook, perf_counter() - started)
            raise
        self.figures.answered(a, hook, perf_counter() - started)
        return answer
