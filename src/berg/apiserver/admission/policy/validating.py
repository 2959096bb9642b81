"""ValidatingAdmissionPolicy: every validation of every policy that is bound to the request.

Source: k8s.io/apiserver pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from berg.apiserver.admission import authorizer, sight
from berg.apiserver.admission.conditions import Fault, OutOfBudget, Scope
from berg.apiserver.admission.figures import ConditionFigures, PolicyFigures
from berg.apiserver.admission.interface import Api, Attributes, Plugin
from berg.apiserver.admission.policy.invocations import Invocation, Misconfigured, fails_open, find
from berg.apiserver.admission.policy.scope import is_wanted, seen_by
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.admission.sight import Sight
from berg.machinery import turns
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

if TYPE_CHECKING:
    from berg.machinery.cel.library.authorizer import Ask

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

    def text(self) -> str:
        name = self.policy["metadata"]["name"]
        if self.binding is None:
            return f"ValidatingAdmissionPolicy '{name}' denied request: {self.message}"
        bound = self.binding["metadata"]["name"]
        return f"ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {self.message}"


@dataclass(slots=True)
class _Judgement:
    """What a policy says of a request: nothing has been done about it yet."""

    denials: list[Denial] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    """faults that the failure policy lets pass"""
    annotations: list[tuple[str, str]] = field(default_factory=list)
    unfit: list[Denial] = field(default_factory=list)
    """audit annotations that could not be worked out"""

    def fault(self, invocation: Invocation, e: Fault, index: int = 0) -> None:
        if fails_open(invocation.policy):
            self.passed.append(str(e))
        else:
            denial = Denial(invocation.policy, invocation.binding, str(e), "", index)
            self.denials.append(denial)


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
        notes: dict[str, dict[str, list[str]]] = {}
        seen = Sight(self.api, a)
        for found in find(self.api, a, _POLICIES, _BINDINGS):
            if isinstance(found, Misconfigured):
                if not fails_open(found.policy):
                    denied.append(Denial(found.policy, found.binding, found.why))
                continue
            started = perf_counter()
            judgement = await self._judge(a, found, seen)
            seconds = perf_counter() - started
            for fault in judgement.passed:
                self._note(found, fault, seconds, "allow")
            for denial in judgement.denials:
                denied += self._act(a, found, denial, seconds)
            for denial in judgement.unfit:
                self._note(found, denial.message, seconds, "deny")
                denied.append(denial)
            own = notes.setdefault(found.policy["metadata"]["name"], {})
            for key, value in judgement.annotations:
                kept = own.setdefault(key, [])
                if value not in kept:
                    kept.append(value)
        for policy, values in notes.items():
            for key, kept in values.items():
                a.annotate(f"{policy}/{key}", ", ".join(kept))
        if denied:
            raise _refusal(a, denied[0])

    async def _judge(self, a: Attributes, invocation: Invocation, seen: Sight) -> _Judgement:
        base = await seen_by(self, a, invocation, seen)
        try:
            if not await is_wanted(self, a, invocation, base, self._conditions):
                return _Judgement()
        except Fault as e:
            judgement = _Judgement()
            judgement.fault(invocation, e)
            return judgement
        ask = authorizer.asking(self.api, a)
        return await turns.taken(lambda: _judged(invocation, base, ask))

    def _note(self, invocation: Invocation, message: str, seconds: float, action: str) -> None:
        policy, binding = invocation.policy["metadata"]["name"], invocation.binding["metadata"]["name"]
        self._checks.note(policy, binding, message, seconds, action)

    def _act(self, a: Attributes, invocation: Invocation, denial: Denial, seconds: float) -> Iterator[Denial]:
        """What the binding wants done about it."""
        binding = invocation.binding["spec"]
        policy, bound = invocation.policy["metadata"]["name"], invocation.binding["metadata"]["name"]
        for action in binding.get("validationActions") or ():
            self._note(invocation, denial.message, seconds, action.lower())
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
                    a.annotate(_FAILURE, orjson.dumps([failure]).decode())


def _judged(invocation: Invocation, base: Mapping[str, Any], ask: Ask) -> _Judgement:
    """Evaluates everything, and does nothing else."""
    judgement = _Judgement()
    spec = invocation.policy["spec"]
    scope = Scope(base, spec.get("variables") or (), ask)
    for index, validation in enumerate(spec.get("validations") or ()):
        try:
            if scope.evaluate(validation["expression"]) is not True:
                message, reason = _message(validation, scope), validation.get("reason") or "Invalid"
                judgement.denials.append(Denial(invocation.policy, invocation.binding, message, reason, index))
        except OutOfBudget as e:  # takes the place of what was said before
            judgement = _Judgement()
            judgement.fault(invocation, e)
            return judgement
        except Fault as e:
            judgement.fault(invocation, e, index)
    if spec.get("auditAnnotations"):
        _annotate(invocation, Scope(base, spec.get("variables") or (), ask), judgement)
    return judgement


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


def _annotate(invocation: Invocation, scope: Scope, judgement: _Judgement) -> None:
    policy = invocation.policy
    for annotation in policy["spec"]["auditAnnotations"]:
        try:
            value = scope.evaluate(annotation["valueExpression"])
        except Fault as e:
            if not fails_open(policy):
                judgement.unfit.append(Denial(policy, invocation.binding, str(e)))
            continue
        if isinstance(value, str) and value.strip():
            shown = value.strip().encode()[:_LONGEST_ANNOTATION].decode(errors="ignore")
            judgement.annotations.append((annotation["key"], shown))


def _refusal(a: Attributes, denial: Denial) -> ApiError:
    text = denial.text()
    error = forbidden(a, text)
    error.reason = denial.reason or "Invalid"
    error.code = _CODES.get(error.reason, 422)
    error.details = {**(error.details or {}), "causes": [{"message": text}]}
    return error
