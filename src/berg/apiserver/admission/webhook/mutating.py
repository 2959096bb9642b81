"""MutatingAdmissionWebhook: webhooks one after the other, each seeing what those before it have changed.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/mutating.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import orjson

from berg.apiserver.admission.interface import Attributes, Rounds
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook import hooks, review
from berg.apiserver.admission.webhook.hooks import CallFailed, Hook, Invocation
from berg.apiserver.admission.webhook.plugin import WebhookPlugin
from berg.machinery import status
from berg.machinery.patch import json as json_patch
from berg.machinery.resources import resource
from berg.machinery.status import ApiError

_CONFIGURATIONS = resource("mutatingwebhookconfigurations.admissionregistration.k8s.io")
_PREFIX = "mutation.webhook.admission.k8s.io/round_{}_index_{}"
_PATCH_PREFIX = "patch.webhook.admission.k8s.io/round_{}_index_{}"


class MutatingAdmissionWebhook(WebhookPlugin):
    name = "MutatingAdmissionWebhook"
    mutating = True
    step = "admit"
    failed_open = "failed-open.mutation.webhook.admission.k8s.io"

    async def admit(self, a: Attributes) -> None:
        found = list(hooks.all_hooks(self.api, _CONFIGURATIONS))
        if not found:
            return
        rounds = a.rounds = a.rounds or Rounds()
        if rounds.second and a.obj is not None and a.obj != rounds.left.get(self.name, a.obj):
            rounds.changed(self.name)
        seen = Sight(self.api, a)
        for index, hook in enumerate(found):
            invocation = await hooks.invocation(self.api, a, hook, seen, self.conditions)
            key = (self.name, hook.key)
            if invocation is None or (rounds.second and key not in rounds.due):
                continue
            if await self._invoke(a, invocation, seen, int(rounds.second), index):
                rounds.changed(self.name)
            if hook.body.get("reinvocationPolicy") == "IfNeeded":
                rounds.ran.add(key)
        if a.obj is not None:
            rounds.left[self.name] = orjson.loads(orjson.dumps(a.obj))

    async def _invoke(self, a: Attributes, invocation: Invocation, seen: Sight, turn: int, index: int) -> bool:
        """Whether the object has changed."""
        hook = invocation.hook
        changed = False
        started = perf_counter()
        try:
            hooks.check_dry_run(a, hook)
            answer = await review.ask(self.caller, a, invocation, seen, mutating=True)
            if not answer.allowed:
                denial = review.denial(invocation, answer.result)
                self.figures.denied(a, hook, perf_counter() - started, denial.code)
                raise denial
            if answer.patch:
                changed = await self._patch(a, invocation, answer.patch, seen)
                a.audit_annotations[_PATCH_PREFIX.format(turn, index)] = _record(
                    hook, patch=answer.patch, patchType="JSONPatch"
                )
            self.figures.answered(a, hook, perf_counter() - started)
        except CallFailed as e:
            self.figures.failed(a, e, perf_counter() - started)
            self.let_pass(a, e, turn, index)
        a.audit_annotations[_PREFIX.format(turn, index)] = _record(hook, mutated=changed)
        return changed

    async def _patch(self, a: Attributes, invocation: Invocation, patch: list[Any], seen: Sight) -> bool:
        obj, _ = await seen.objects(invocation.resource)
        if obj is None:
            why = "attempted to modify the object, which is not supported for this operation"
            raise status.internal_error(f'admission webhook "{invocation.hook.name}" {why}')
        try:
            patched = json_patch.apply(obj, patch)
        except ApiError as e:
            raise status.internal_error(e.message) from None
        if not isinstance(patched, dict):
            raise status.internal_error("the patched object is not an object")
        before = orjson.loads(orjson.dumps(a.obj))
        await seen.take(patched, invocation.resource)
        return bool(before != a.obj)


def _record(hook: Hook, **what: Any) -> str:
    return orjson.dumps({"configuration": hook.configuration, "webhook": hook.name, **what}).decode()
