"""ValidatingAdmissionPolicies, MutatingAdmissionPolicies and their bindings.

Source: kubernetes pkg/apis/admissionregistration/v1/defaults.go, validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells, checks
from berg.apiserver.kinds.label_selectors import validate_conditions
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

GROUP = "admissionregistration.k8s.io"


def match_resources_defaults(match: Obj | None) -> None:
    if match is None:
        return
    if match.get("matchPolicy") is None:
        match["matchPolicy"] = "Equivalent"
    for key in ("namespaceSelector", "objectSelector"):
        if match.get(key) is None:
            match[key] = {}
    for key in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(key) or ():
            if rule.get("scope") is None:
                rule["scope"] = "*"


def _param_kind(obj: Obj) -> str:
    kind = (obj.get("spec") or {}).get("paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else "<unset>"


def _param_ref(obj: Obj) -> str:
    ref = (obj.get("spec") or {}).get("paramRef")
    if not ref:
        return "<unset>"
    if ref.get("name"):
        return f"{ref.get('namespace') or '*'}/{ref['name']}"
    return cells.label_selector(ref["selector"]) if ref.get("selector") else "<unset>"


class _PolicyStrategy(Strategy):
    namespaced = False
    allow_unconditional_update = False

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            return
        if spec.get("failurePolicy") is None:
            spec["failurePolicy"] = "Fail"
        match_resources_defaults(spec.get("matchConstraints"))

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.admissionregistration.policy_validation import validate_policy

        return validate_policy(obj)


class _BindingStrategy(Strategy):
    namespaced = False
    has_status = False
    allow_unconditional_update = False
    columns: Sequence[Column] = [
        cells.NAME,
        Column("PolicyName", cells.at("spec.policyName")),
        Column("ParamRef", _param_ref),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        match_resources_defaults((obj.get("spec") or {}).get("matchResources"))

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.admissionregistration.policy_validation import validate_policy_binding

        return validate_policy_binding(obj)


@strategy_for(GROUP, "validatingadmissionpolicies")
class ValidatingAdmissionPolicyStrategy(_PolicyStrategy):
    status_metadata = ()

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        state = obj.get("status") or {}
        errors: list[FieldError] = []
        for i, warning in enumerate((state.get("typeChecking") or {}).get("expressionWarnings") or ()):
            errors += checks.present(warning, f"status.typeChecking.expressionWarnings[{i}]", "warning", "fieldRef")
        return errors + validate_conditions(state.get("conditions"), "status.conditions")

    columns = [
        cells.NAME,
        Column("Validations", lambda o: len((o.get("spec") or {}).get("validations") or ()), "integer"),
        Column("ParamKind", _param_kind),
        cells.AGE,
    ]


@strategy_for(GROUP, "mutatingadmissionpolicies")
class MutatingAdmissionPolicyStrategy(_PolicyStrategy):
    has_status = False
    columns = [
        cells.NAME,
        Column("Mutations", lambda o: len((o.get("spec") or {}).get("mutations") or ()), "integer"),
        Column("ParamKind", _param_kind),
        cells.AGE,
    ]


@strategy_for(GROUP, "validatingadmissionpolicybindings")
class ValidatingAdmissionPolicyBindingStrategy(_BindingStrategy):
    pass


@strategy_for(GROUP, "mutatingadmissionpolicybindings")
class MutatingAdmissionPolicyBindingStrategy(_BindingStrategy):
    pass
