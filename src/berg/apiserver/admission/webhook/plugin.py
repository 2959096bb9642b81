"""What both webhook plugins are: they see every request but those about webhooks and policies themselves, ask through
one caller, and note a webhook that failed and was let pass.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/generic.
"""

from __future__ import annotations

from berg.apiserver.admission import sight
from berg.apiserver.admission.figures import ConditionFigures
from berg.apiserver.admission.interface import Api, Attributes, Plugin
from berg.apiserver.admission.webhook.caller import Caller
from berg.apiserver.admission.webhook.figures import Figures
from berg.apiserver.admission.webhook.hooks import CallFailed
from berg.machinery.status import Obj


class WebhookPlugin(Plugin):
    subresources = None
    failed_open: str
    step: str
    """what metrics call it"""
    """the audit annotation of a failure that was let pass, but for round and index"""

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self.caller = Caller(api)
        self.figures = Figures(self.metrics, self.step)
        self.conditions = ConditionFigures(self.metrics, "webhook", self.step)

    def handles(self, a: Attributes) -> bool:
        return not sight.is_configuration(a)

    async def close(self) -> None:
        await self.caller.close()

    def let_pass(self, a: Attributes, failed: CallFailed, turn: int, index: int) -> None:
        """Raises ApiError where the failure policy does not let it."""
        if not failed.hook.ignores_failure:
            raise failed.error() from None
        a.audit_annotations[f"{self.failed_open}/round_{turn}_index_{index}"] = failed.hook.name
