"""MutatingAdmissionWebhook: webhooks one after the other, each seeing what those before it have changed.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/mutating.
"""

from __future__ import annotations

from typing import Any

import orjson

from berg.apiserver.admission.interface import Attributes, Rounds
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook import hooks, review
from berg.apiserver.admission.webhook.hooks import Hook, Invocation
from berg.apiserver.admission.webhook.plugin import WebhookPlugin
from berg.machinery import status
from berg.machinery.patch import json as json_patch
from berg.machinery.resources import resource
from berg.machinery.status import ApiError

_CONFIGURATIONS = resource("mutatingwebhookconfigurations.admissionregistration.k8s.io")
_NO_OBJECT = (
    "json: cannot unmarshal array into Go value of type struct { APIVersion string "
    '"json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)
_PREFIX = "mutation.webhook.admission.k8s.io/round_{}_index_{}"
_PATCH_PREFIX = "patch.webhook.admission.k8s.io/round_{}_index_{}"


class MutatingAdmissionWebhook(WebhookPlugin):
    name = "MutatingAdmissionWebhook"
    step = "admit"
    mutating = True
    failed_open = "failed-open.mutation.webhook.admission.k8s.io"

    async def admit(self, a: Attributes) -> None:
        found = list(hooks.all_hooks(self.api, _CONFIGURATIONS))
        if not found:
            return
        rounds = a.rounds = a.rounds or Rounds()
        if rounds.second and a.obj is not None and a.obj != rounds.left.get(self.name, a.obj):
            rounds.changed(self.name)
        seen = Sight(self.api, a)
        turn = int(rounds.second)
        for index, hook in enumerate(found):
            invocation = await hooks.invocation(self.api, a, hook, seen, self.conditions)
            key = (self.name, hook.key)
            if invocation is None or (rounds.second and key not in rounds.due):
                continue
            call = self._invoke(a, invocation, seen, turn, index)
            if await self.outcome(a, hook, call, turn, index):
                rounds.changed(self.name)
            if hook.body.get("reinvocationPolicy") == "IfNeeded":
                rounds.ran.add(key)
        if a.obj is not None:
            rounds.left[self.name] = orjson.loads(orjson.dumps(a.obj))

    async def _invoke(self, a: Attributes, invocation: Invocation, seen: Sight, turn: int, index: int) -> bool:
        """Whether the object has changed. Raises CallFailed, ApiError."""
        hook = invocation.hook
        changed = False
        try:
            hooks.check_dry_run(a, hook)
            answer = await review.ask(self.caller, a, invocation, seen, mutating=True)
            if answer.patch:
                changed = await self._patch(a, invocation, answer.patch, seen)
                ordered = [dict(sorted(operation.items())) for operation in answer.patch]
                a.annotate(_PATCH_PREFIX.format(turn, index), _record(hook, patch=ordered, patchType="JSONPatch"))
        finally:
            a.annotate(_PREFIX.format(turn, index), _record(hook, mutated=changed))
        return changed

    async def _patch(self, a: Attributes, invocation: Invocation, patch: list[Any], seen: Sight) -> bool:
        obj, _ = await seen.objects(invocation.resource)
        if obj is None:
            why = "attempted to modify the object, which is not supported for this operation"
            raise status.internal_error(f'admission webhook "{invocation.hook.name}" {why}')
        try:
            patched = json_patch.apply(obj, patch)
        except ApiError as e:
            raise status.internal_error(str(e)) from None
        if patched is None:
            patched = {}
        if not isinstance(patched, dict):
            raise status.internal_error(f"couldn't get version/kind; json parse error: {_NO_OBJECT}")
        before = orjson.loads(orjson.dumps(a.obj))
        differs = a.is_custom and patched != obj  # also what is pruned then
        await seen.take(patched, invocation.resource)
        assert a.rounds is not None
        return a.rounds.settles_times(a) or differs or before != a.obj


def _record(hook: Hook, **what: Any) -> str:
    return orjson.dumps({"configuration": hook.configuration, "webhook": hook.name, **what}).decode()
