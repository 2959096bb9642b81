"""What admission policies and their bindings may say.

Source: kubernetes pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.admissionregistration.expressions import compiler, expression, match_conditions
from berg.apiserver.kinds.admissionregistration.rules import (
    FAILURE_POLICIES,
    MATCH_POLICIES,
    REINVOCATION,
    choice,
    rule_faults,
)
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, forbidden_field, invalid_value, not_supported, required

if TYPE_CHECKING:
    from berg.machinery.cel.admission import Compiler

_MUTATING_OPERATIONS = ("*", "CONNECT", "CREATE", "UPDATE")
_ACTIONS = ("Audit", "Deny", "Warn")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_MAX_ANNOTATIONS = 20
_LONGEST_ANNOTATION = 5 * 1024


def validate_policy(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    mutating = obj.get("kind") == "MutatingAdmissionPolicy" or "mutations" in spec
    errors: list[FieldError] = []
    if spec.get("failurePolicy") is None:
        errors.append(required("spec.failurePolicy"))
    errors += choice(spec, "failurePolicy", FAILURE_POLICIES, "spec")
    if spec.get("paramKind") is not None:
        errors += _param_kind(spec["paramKind"], "spec.paramKind")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        errors.append(required("spec.matchConstraints"))
    else:
        errors += _match_resources(constraints, "spec.matchConstraints")
        if not constraints.get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
        if mutating:
            errors += _mutable_operations(constraints, "spec.matchConstraints")
    errors += match_conditions(spec.get("matchConditions") or [], "spec.matchConditions", params=True)
    using = compiler(params=spec.get("paramKind") is not None, composed=mutating or bool(spec.get("variables")))
    for i, variable in enumerate(spec.get("variables") or ()):
        errors += _variable(using, variable, f"spec.variables[{i}]")
    errors += _mutations(using, spec) if mutating else _validations(using, obj, spec)
    return errors


def _mutable_operations(holder: Obj, at: str) -> list[FieldError]:
    return [
        not_supported(f"{at}.resourceRules.operations", operation, _MUTATING_OPERATIONS)
        for rule in holder.get("resourceRules") or ()
        for operation in rule.get("operations") or ()
        if operation not in _MUTATING_OPERATIONS
    ]


def _param_kind(kind: Obj, at: str) -> Iterator[FieldError]:
    text, name = kind.get("apiVersion") or "", kind.get("kind") or ""
    path = f"{at}.apiVersion"
    group, _, version = text.rpartition("/")
    if not text:
        yield required(path)
    elif text.count("/") > 1:
        yield invalid_value(path, text, f"unexpected GroupVersion string: {text}")
    else:
        if group and (bad := names.dns1123_subdomain(group)):
            yield invalid_value(path, group, ",".join(bad))
        if not version:
            yield invalid_value(path, text, "version must be specified")
        elif bad := names.dns1035_label(version):
            yield invalid_value(path, version, ",".join(bad))
    if not name:
        yield required(f"{at}.kind")
    elif bad := names.dns1035_label(name.lower()):
        why = f"may have mixed case, but should otherwise match: {','.join(bad)}"
        yield invalid_value(f"{at}.kind", name, why)


def _match_resources(resources: Obj, at: str) -> Iterator[FieldError]:
    if resources.get("matchPolicy") is None:
        yield required(f"{at}.matchPolicy")
    yield from choice(resources, "matchPolicy", MATCH_POLICIES, at)
    for key in ("namespaceSelector", "objectSelector"):
        if resources.get(key) is None:
            yield required(f"{at}.{key}")
        yield from validate_selector(resources.get(key), f"{at}.{key}")
    for key in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(resources.get(key) or ()):
            path = f"{at}.{key}[{i}]"
            given = rule.get("resourceNames") or []
            for j, name in enumerate(given):
                yield from checks.named(f"{path}.resourceNames[{j}]", name, names.path_segment)
                if name in given[:j]:
                    yield duplicate(f"{path}.resourceNames[{j}]", name)
            yield from rule_faults(rule, path)


def _variable(using: Compiler, variable: Obj, at: str) -> Iterator[FieldError]:
    name = variable.get("name") or ""
    if not name.strip():
        yield required(f"{at}.name", "name is not specified")
    elif not name.isidentifier():
        yield invalid_value(f"{at}.name", name, "must be a valid CEL identifier")
    text = variable.get("expression") or ""
    yield from expression(using, text, f"{at}.expression", "expression is not specified", variable=name)


def _validations(using: Compiler, obj: Obj, spec: Obj) -> Iterator[FieldError]:
    validations, annotations = spec.get("validations") or (), spec.get("auditAnnotations") or ()
    if not validations and not annotations:
        why = "validations or auditAnnotations must contain at least one item"
        yield required("spec.validations", why)
        yield required("spec.auditAnnotations", why)
    for i, validation in enumerate(validations):
        yield from _validation(using, validation, f"spec.validations[{i}]")
    if len(annotations) > _MAX_ANNOTATIONS:
        why = f"must not have more than {_MAX_ANNOTATIONS} auditAnnotations"
        yield invalid_value("spec.auditAnnotations", annotations, why)
    seen: set[str] = set()
    for i, annotation in enumerate(annotations):
        at, key = f"spec.auditAnnotations[{i}]", annotation.get("key") or ""
        if name := obj["metadata"].get("name"):
            yield from checks.named(f"{at}.key", f"{name}/{key}", names.qualified_name)
        else:
            yield invalid_value(f"{at}.key", key, "requires metadata.name be non-empty")
        text = annotation.get("valueExpression") or ""
        if len(text.strip().encode()) > _LONGEST_ANNOTATION:
            yield required(f"{at}.valueExpression", f"must not exceed {_LONGEST_ANNOTATION} bytes in length")
        else:
            path = f"{at}.valueExpression"
            yield from expression(using, text, path, "valueExpression is not specified", wanted="text_or_null")
        if key in seen:
            yield duplicate(f"{at}.key", key)
        seen.add(key)


def _validation(using: Compiler, validation: Obj, at: str) -> Iterator[FieldError]:
    text = validation.get("expression") or ""
    yield from expression(using, text, f"{at}.expression", "expression is not specified", wanted="boolean")
    message, computed = validation.get("message") or "", validation.get("messageExpression") or ""
    if computed and not computed.strip():
        yield invalid_value(f"{at}.messageExpression", computed, "must be non-empty if specified")
    elif computed:
        yield from expression(using, computed, f"{at}.messageExpression", "", wanted="text")
    if message and not message.strip():
        yield invalid_value(f"{at}.message", message, "must be non-empty if specified")
    elif any(c in message.strip() for c in "\n\r"):
        yield invalid_value(f"{at}.message", message, "must not contain line breaks")
    yield from choice(validation, "reason", _REASONS, at)


_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_RESULTS = {"ApplyConfiguration": "object", "JSONPatch": "patch"}


def _mutations(using: Compiler, spec: Obj) -> Iterator[FieldError]:
    mutations = spec.get("mutations") or ()
    if not mutations:
        yield required("spec.mutations", "mutations must contain at least one item")
    for i, mutation in enumerate(mutations):
        at, kind = f"spec.mutations[{i}]", mutation.get("patchType") or ""
        if not kind:
            yield required(f"{at}.patchType")
            continue
        if kind not in _PATCHES:
            yield not_supported(f"{at}.patchType", kind, sorted(_PATCHES))
            continue
        for other, key in _PATCHES.items():
            body = mutation.get(key)
            if other != kind:
                if body is not None:
                    yield invalid_value(f"{at}.{key}", f"{{{key}}}", f"must not be specified when patchType is {kind}")
            elif body is None:
                yield required(f"{at}.{key}", f"must be specified when patchType is {kind}")
            else:
                text = body.get("expression") or ""
                yield from expression(using, text, f"{at}.{key}.expression", "", wanted=_RESULTS[kind])
    if not spec.get("reinvocationPolicy"):
        yield required("spec.reinvocationPolicy")
    else:
        yield from choice(spec, "reinvocationPolicy", REINVOCATION, "spec")


def validate_policy_binding(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    mutating = obj.get("kind") == "MutatingAdmissionPolicyBinding"
    errors = checks.required_name("spec.policyName", spec.get("policyName"))
    if spec.get("paramRef") is not None:
        errors += _param_ref(spec["paramRef"], "spec.paramRef")
    if spec.get("matchResources") is not None:
        errors += _match_resources(spec["matchResources"], "spec.matchResources")
        if mutating:
            errors += _mutable_operations(spec["matchResources"], "spec.matchResources")
    if not mutating:
        errors += _actions(spec.get("validationActions") or [])
    return errors


def _param_ref(ref: Obj, at: str) -> Iterator[FieldError]:
    name, selector, missing = ref.get("name"), ref.get("selector"), ref.get("parameterNotFoundAction")
    both = "name and selector are mutually exclusive"
    if name:
        yield from checks.named(f"{at}.name", name, names.path_segment)
        if selector is not None:
            yield forbidden_field(f"{at}.name", both)
    if selector is not None:
        yield from validate_selector(selector, f"{at}.selector")
        if name:
            yield forbidden_field(f"{at}.selector", both)
    if not name and selector is None:
        yield required(at, "one of name or selector must be specified")
    if not missing:
        yield required(f"{at}.parameterNotFoundAction")
    elif missing not in ("Deny", "Allow"):
        yield not_supported(f"{at}.parameterNotFoundAction", missing, ("Deny", "Allow"))


def _actions(actions: Collection[str]) -> Iterator[FieldError]:
    path = "spec.validationActions"
    seen: set[str] = set()
    for i, action in enumerate(actions):
        if action not in _ACTIONS:
            yield not_supported(f"{path}[{i}]", action, _ACTIONS)
        if action in seen:
            yield duplicate(f"{path}[{i}]", action)
        seen.add(action)
    if {"Deny", "Warn"} <= seen:
        why = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        yield invalid_value(path, actions, why)
    if not seen:
        yield required(path, "at least one validation action is required")
