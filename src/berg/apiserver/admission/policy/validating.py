"""ValidatingAdmissionPolicy: every validation of every policy that is bound to the request.

Source: k8s.io/apiserver pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

import orjson

from berg.apiserver.admission import conditions, sight
from berg.apiserver.admission.conditions import Fault, Scope
from berg.apiserver.admission.figures import ConditionFigures, PolicyFigures
from berg.apiserver.admission.interface import Api, Attributes, Plugin
from berg.apiserver.admission.policy.invocations import Invocation, Misconfigured, fails_open, find
from berg.apiserver.admission.policy.scope import scope_of
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.admission.sight import Sight
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

_POLICIES = resource("validatingadmissionpolicies.admissionregistration.k8s.io")
_BINDINGS = resource("validatingadmissionpolicybindings.admissionregistration.k8s.io")
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_LONGEST_MESSAGE = 5 * 1024
_LONGEST_ANNOTATION = 10 * 1024


@dataclass(slots=True)
class Denial:
    policy: Obj
    binding: Obj | None
    message: str
    reason: str = ""
    index: int = 0
    seconds: float = 0.0
    """how long its expression took"""

    def text(self) -> str:
        name = self.policy["metadata"]["name"]
        if self.binding is None:
            return f"ValidatingAdmissionPolicy '{name}' denied request: {self.message}"
        bound = self.binding["metadata"]["name"]
        return f"ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {self.message}"


@dataclass(slots=True)
class _Notes:
    """Audit annotations of one policy over all its bindings."""

    values: dict[str, list[str]] = field(default_factory=dict)

    def add(self, key: str, value: str) -> None:
        kept = self.values.setdefault(key, [])
        if value not in kept:
            kept.append(value)


class ValidatingAdmissionPolicy(Plugin):
    name = "ValidatingAdmissionPolicy"
    validating = True
    subresources = None

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self._conditions = ConditionFigures(self.metrics, "policy", "validate")
        self._checks = PolicyFigures(self.metrics, "validating", "BETA", ("enforcement_action",))

    def handles(self, a: Attributes) -> bool:
        return not sight.is_configuration(a) and not sight.is_review(a)

    async def validate(self, a: Attributes) -> None:
        denied: list[Denial] = []
        notes: dict[str, _Notes] = {}
        seen = Sight(self.api, a)
        for found in find(self.api, a, _POLICIES, _BINDINGS):
            if isinstance(found, Misconfigured):
                if not fails_open(found.policy):
                    denied.append(Denial(found.policy, found.binding, found.why))
                continue
            scope = await scope_of(self.api, a, found, seen)
            own = notes.setdefault(found.policy["metadata"]["name"], _Notes())
            for denial in self._judge(a, found, scope):
                denied += self._act(a, found, denial)
            for denial in _annotate(found, scope, own):
                denied.append(denial)
                self._note(found, denial, "deny")
        for policy, own in notes.items():
            for key, values in own.values.items():
                a.audit_annotations[f"{policy}/{key}"] = ", ".join(values)
        if denied:
            raise _refusal(a, denied[0])

    def _note(self, found: Invocation, denial: Denial, action: str) -> None:
        policy, binding = found.policy["metadata"]["name"], found.binding["metadata"]["name"]
        self._checks.note(policy, binding, denial.message, denial.seconds, action)

    def _judge(self, a: Attributes, invocation: Invocation, scope: Scope) -> Iterator[Denial]:
        policy, binding = invocation.policy, invocation.binding
        spec = policy["spec"]
        open_ = fails_open(policy)
        told = self._conditions.of(policy["metadata"]["name"], a.operation)
        try:
            if not conditions.hold(spec.get("matchConditions") or (), scope, ignore=open_, told=told):
                return
        except Fault as e:
            yield Denial(policy, binding, str(e))
            return
        for index, validation in enumerate(spec.get("validations") or ()):
            started = perf_counter()
            try:
                held = scope.evaluate(validation["expression"])
            except Fault as e:
                failed = Denial(policy, binding, str(e), index=index, seconds=perf_counter() - started)
                if open_:
                    self._note(invocation, failed, "allow")
                else:
                    yield failed
                continue
            if held is not True:
                why, seconds = validation.get("reason") or "Invalid", perf_counter() - started
                yield Denial(policy, binding, _message(validation, scope), why, index, seconds)

    def _act(self, a: Attributes, invocation: Invocation, denial: Denial) -> Iterator[Denial]:
        """What the binding wants done about it."""
        binding = invocation.binding["spec"]
        policy, bound = invocation.policy["metadata"]["name"], invocation.binding["metadata"]["name"]
        for action in binding.get("validationActions") or ():
            self._note(invocation, denial, action.lower())
            match action:
                case "Deny":
                    yield denial
                case "Warn":
                    where = f"ValidatingAdmissionPolicy '{policy}' with binding '{bound}'"
                    a.warnings.append(f"Validation failed for {where}: {denial.message}")
                case "Audit":
                    failure = {
                        "message": denial.message,
                        "policy": binding["policyName"],
                        "binding": bound,
                        "expressionIndex": denial.index,
                        "validationActions": binding["validationActions"],
                    }
                    a.audit_annotations[_FAILURE] = orjson.dumps([failure]).decode()


def _message(validation: Obj, scope: Scope) -> str:
    message = ""
    if validation.get("messageExpression"):
        try:
            said = scope.evaluate(validation["messageExpression"])
        except Fault:
            said = None
        if isinstance(said, str):
            message = said.strip()
            if len(message.encode()) > _LONGEST_MESSAGE or "\n" in message:
                message = ""
    return (
        message or (validation.get("message") or "").strip() or f"failed expression: {validation['expression'].strip()}"
    )


def _annotate(invocation: Invocation, scope: Scope, notes: _Notes) -> Iterator[Denial]:
    policy = invocation.policy
    annotations = policy["spec"].get("auditAnnotations") or ()
    if not annotations:
        return
    try:
        if not conditions.hold(policy["spec"].get("matchConditions") or (), scope, ignore=True):
            return
    except Fault:
        return
    for annotation in annotations:
        started = perf_counter()
        try:
            value = scope.evaluate(annotation["valueExpression"])
        except Fault as e:
            if not fails_open(policy):
                yield Denial(policy, invocation.binding, str(e), seconds=perf_counter() - started)
            continue
        if isinstance(value, str) and value.strip():
            notes.add(annotation["key"], value.strip()[:_LONGEST_ANNOTATION])


def _refusal(a: Attributes, denial: Denial) -> ApiError:
    text = denial.text()
    error = forbidden(a, text)
    error.reason = denial.reason or "Invalid"
    error.code = _CODES.get(error.reason, 422)
    error.details = {**(error.details or {}), "causes": [{"message": text}]}
    return error
