"""ValidatingAdmissionWebhook: all webhooks at once, the first refusal in their order is the answer.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/validating.
"""

from __future__ import annotations

import asyncio

from berg.apiserver.admission import sight
from berg.apiserver.admission.interface import Api, Attributes, Plugin
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook import hooks, review
from berg.apiserver.admission.webhook.caller import Caller
from berg.apiserver.admission.webhook.hooks import CallFailed, Invocation
from berg.machinery.resources import resource
from berg.machinery.status import Obj

_CONFIGURATIONS = resource("validatingwebhookconfigurations.admissionregistration.k8s.io")
_FAILED_OPEN = "failed-open.validating.webhook.admission.k8s.io/round_0_index_{}"


class ValidatingAdmissionWebhook(Plugin):
    name = "ValidatingAdmissionWebhook"
    validating = True
    subresources = None

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self.client = Caller(api)

    def handles(self, a: Attributes) -> bool:
        return not sight.is_configuration(a)

    async def close(self) -> None:
        await self.client.close()

    async def validate(self, a: Attributes) -> None:
        seen = Sight(self.api, a)
        found: list[Invocation] = []
        for hook in hooks.all_hooks(self.api, _CONFIGURATIONS):
            invocation = await hooks.invocation(self.api, a, hook, seen)
            if invocation is not None:
                found.append(invocation)
        if not found:
            return
        answers = await asyncio.gather(
            *(self._call(a, invocation, seen, i) for i, invocation in enumerate(found)), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _call(self, a: Attributes, invocation: Invocation, seen: Sight, index: int) -> None:
        hook = invocation.hook
        try:
            hooks.check_dry_run(a, hook)
            answer = await review.ask(self.client, a, invocation, seen, mutating=False)
        except CallFailed as e:
            if not hook.ignores_failure:
                raise e.error() from None
            a.audit_annotations[_FAILED_OPEN.format(index)] = hook.name
            return
        if not answer.allowed:
            raise review.denial(invocation, answer.result)
