"""ValidatingAdmissionWebhook: all webhooks at once, the first refusal that comes is the answer.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/validating.
"""

from __future__ import annotations

import asyncio

from berg.apiserver.admission.interface import Attributes
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook import hooks, review
from berg.apiserver.admission.webhook.hooks import Invocation
from berg.apiserver.admission.webhook.plugin import WebhookPlugin
from berg.machinery.resources import resource

_CONFIGURATIONS = resource("validatingwebhookconfigurations.admissionregistration.k8s.io")


class ValidatingAdmissionWebhook(WebhookPlugin):
    name = "ValidatingAdmissionWebhook"
    step = "validating"
    validating = True
    failed_open = "failed-open.validating.webhook.admission.k8s.io"

    async def validate(self, a: Attributes) -> None:
        seen = Sight(self.api, a)
        found: list[Invocation] = []
        for hook in hooks.all_hooks(self.api, _CONFIGURATIONS):
            invocation = await hooks.invocation(self.api, a, hook, seen, self.conditions)
            if invocation is not None:
                found.append(invocation)
        if not found:
            return
        refusals: list[BaseException] = []  # in the order in which they come

        async def call(invocation: Invocation, index: int) -> None:
            try:
                await self.outcome(a, invocation.hook, self._call(a, invocation, seen), 0, index)
            except Exception as e:
                refusals.append(e)

        await asyncio.gather(*(call(invocation, i) for i, invocation in enumerate(found)))
        if refusals:
            raise refusals[0]

    async def _call(self, a: Attributes, invocation: Invocation, seen: Sight) -> None:
        """Raises CallFailed, ApiError."""
        hooks.check_dry_run(a, invocation.hook)
        await review.ask(self.caller, a, invocation, seen, mutating=False)
