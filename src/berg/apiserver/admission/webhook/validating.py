"""ValidatingAdmissionWebhook: all webhooks at once, the first refusal in their order is the answer.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/validating.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from berg.apiserver.admission.interface import Attributes
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook import hooks, review
from berg.apiserver.admission.webhook.hooks import CallFailed, Invocation
from berg.apiserver.admission.webhook.plugin import WebhookPlugin
from berg.machinery.resources import resource

_CONFIGURATIONS = resource("validatingwebhookconfigurations.admissionregistration.k8s.io")


class ValidatingAdmissionWebhook(WebhookPlugin):
    name = "ValidatingAdmissionWebhook"
    validating = True
    step = "validating"
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
        answers = await asyncio.gather(
            *(self._call(a, invocation, seen, i) for i, invocation in enumerate(found)), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _call(self, a: Attributes, invocation: Invocation, seen: Sight, index: int) -> None:
        hook = invocation.hook
        started = perf_counter()
        try:
            hooks.check_dry_run(a, hook)
            answer = await review.ask(self.caller, a, invocation, seen, mutating=False)
        except CallFailed as e:
            self.figures.failed(a, e, perf_counter() - started)
            self.let_pass(a, e, 0, index)
            return
        if not answer.allowed:
            denial = review.denial(invocation, answer.result)
            self.figures.denied(a, hook, perf_counter() - started, denial.code)
            raise denial
        self.figures.answered(a, hook, perf_counter() - started)
