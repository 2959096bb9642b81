"""MutatingAdmissionPolicy: policies one after the other, each seeing what those before it have changed.

Source: k8s.io/apiserver pkg/admission/plugin/policy/mutating.
"""

from __future__ import annotations

from time import perf_counter

import orjson

from berg.apiserver.admission import authorizer, sight
from berg.apiserver.admission.conditions import Fault, Scope
from berg.apiserver.admission.figures import ConditionFigures, PolicyFigures
from berg.apiserver.admission.interface import Api, Attributes, Plugin, Rounds
from berg.apiserver.admission.policy.invocations import Invocation, Misconfigured, fails_open, find
from berg.apiserver.admission.policy.patches import mutated
from berg.apiserver.admission.policy.scope import is_wanted, seen_by
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.admission.sight import Sight
from berg.machinery import schema, turns
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.typedef import TypeDef

_POLICIES = resource("mutatingadmissionpolicies.admissionregistration.k8s.io")
_BINDINGS = resource("mutatingadmissionpolicybindings.admissionregistration.k8s.io")


class MutatingAdmissionPolicy(Plugin):
    name = "MutatingAdmissionPolicy"
    mutating = True
    subresources = None

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self._conditions = ConditionFigures(self.metrics, "policy", "validate")
        self._checks = PolicyFigures(self.metrics, "mutating", "ALPHA")

    def handles(self, a: Attributes) -> bool:
        return not sight.is_configuration(a) and not sight.is_review(a)

    async def admit(self, a: Attributes) -> None:
        found = list(find(self.api, a, _POLICIES, _BINDINGS))
        if not found:
            return
        rounds = a.rounds = a.rounds or Rounds()
        if rounds.second and a.obj is not None and a.obj != rounds.left.get(self.name, a.obj):
            rounds.changed(self.name)
        faults: list[str] = []
        reason = "Invalid"
        seen = Sight(self.api, a)
        for one in found:
            if isinstance(one, Misconfigured):
                if not fails_open(one.policy):
                    faults.append(_told(one.policy["metadata"]["name"], one.binding, one.why))
                    reason = reason if len(faults) > 1 else "Forbidden"
                continue
            faults += await self._invoke(a, one, seen, rounds)
        if rounds.dirty:  # upstream looks no closer
            rounds.changed(self.name)
            rounds.dirty = False
        if a.obj is not None:
            rounds.left[self.name] = orjson.loads(orjson.dumps(a.obj))
        if faults:
            raise _refusal(a, faults, reason)

    async def _invoke(self, a: Attributes, invocation: Invocation, seen: Sight, rounds: Rounds) -> list[str]:
        policy = invocation.policy
        spec, name = policy["spec"], policy["metadata"]["name"]
        open_ = fails_open(policy)
        key = (self.name, invocation.key)
        base = await seen_by(self, a, invocation, seen)
        try:
            if not await is_wanted(self, a, invocation, base, self._conditions):
                return []
        except Fault as e:
            return [] if open_ else [_told(name, invocation.binding, str(e))]
        if rounds.second and key not in rounds.due:
            return []
        faults: list[str] = []
        before = orjson.loads(orjson.dumps(a.obj))
        for mutation in spec.get("mutations") or () if a.obj is not None else ():
            started = perf_counter()
            fault = None
            try:
                await self._mutate(a, invocation, mutation, seen)
                rounds.dirty = True
            except Fault as e:
                fault = str(e)
                if not open_:
                    faults.append(_told(name, invocation.binding, fault))
            except ApiError as e:
                self._checks.note(name, invocation.binding["metadata"]["name"], e.message, perf_counter() - started)
                raise
            self._checks.note(name, invocation.binding["metadata"]["name"], fault, perf_counter() - started)
        if before != a.obj:
            rounds.changed(self.name)
        if spec.get("reinvocationPolicy") == "IfNeeded":
            rounds.ran.add(key)
        return faults

    async def _mutate(self, a: Attributes, invocation: Invocation, mutation: Obj, seen: Sight) -> None:
        """Raises Fault."""
        base = await seen_by(self, a, invocation, seen)
        ask, type_ = authorizer.asking(self.api, a), self._type_of(invocation.resource)
        variables = invocation.policy["spec"].get("variables") or ()

        def work() -> Obj:
            return mutated(mutation, Scope(base, variables, ask), base["object"], type_)

        changed = await turns.taken(work)
        await seen.take(orjson.loads(orjson.dumps(changed)), invocation.resource)

    def _type_of(self, r: Resource) -> TypeDef | None:
        registry = getattr(self.api, "registries", {}).get((r.group, r.plural))
        if registry is not None:
            found: TypeDef | None = registry.type_of(r)
            return found
        return schema.type_of(r.group, r.version, r.kind)


def _told(policy: str, binding: dict[str, object] | None, why: str) -> str:
    if binding is None:
        return f'policy "{policy}" denied request: {why}'
    meta = binding["metadata"]
    assert isinstance(meta, dict)
    return f"policy '{policy}' with binding '{meta['name']}' denied request: {why}"


def _refusal(a: Attributes, faults: list[str], reason: str) -> ApiError:
    """`reason`: of the first fault."""
    error = forbidden(a, "")
    error.message = faults[0]
    error.reason = reason
    error.details = {**(error.details or {}), "causes": [{"message": f} for f in faults]}
    return error
