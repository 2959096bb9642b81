"""Where a pod may run: affinity, tolerations, spreading, gates, priority.

Source: kubernetes pkg/apis/core/validation validateAffinity, ValidateTolerations, validateTopologySpreadConstraints.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.security import Capabilities
from berg.apiserver.kinds.label_selectors import validate_label_name, validate_selector
from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_DECIMAL = re.compile(r"0|-?[1-9][0-9]*")
_DECIMAL_MESSAGE = "must be a valid decimal integer in canonical form"
EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]


def validate_tolerations(tolerations: Collection[Obj] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, t in enumerate(tolerations or ()):
        at = f"{path}[{i}]"
        key, operator = t.get("key") or "", t.get("operator") or ""
        value, effect = t.get("value") or "", t.get("effect") or ""
        if key:
            errors += validate_label_name(key, f"{at}.key")
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid_value(f"{at}.operator", operator, why))
        if t.get("tolerationSeconds") is not None and effect != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid_value(f"{at}.effect", effect, why))
        if operator in ("", "Equal"):
            if faults := names.label_value(value):
                errors.append(invalid_value(f"{at}.operator", value, ";".join(faults)))
        elif operator == "Exists":
            if value:
                errors.append(invalid_value(f"{at}.operator", value, "value must be empty when `operator` is 'Exists'"))
        elif operator in ("Lt", "Gt") and Capabilities.compare_taints:
            errors += _number(value, f"{at}.value")
        elif operator in ("Lt", "Gt"):
            errors.append(not_supported(f"{at}.operator", operator, ["Equal", "Exists", "Lt", "Gt"]))
        else:
            errors.append(not_supported(f"{at}.operator", operator, ["Equal", "Exists"]))
        if effect and effect not in EFFECTS:
            errors.append(not_supported(f"{at}.effect", effect, EFFECTS))
    return errors


def _number(value: str, path: str) -> list[FieldError]:
    """A 64-bit integer, as it is written in base 10."""
    errors: list[FieldError] = []
    if not _DECIMAL.fullmatch(value):
        errors.append(invalid_value(path, value, _DECIMAL_MESSAGE if value else "must be non-empty"))
    if not re.fullmatch(r"[+-]?\d+", value):
        errors.append(invalid_value(path, value, f'strconv.ParseInt: parsing "{value}": invalid syntax'))
    elif not -(1 << 63) <= int(value) < 1 << 63:
        errors.append(invalid_value(path, value, f'strconv.ParseInt: parsing "{value}": value out of range'))
    return errors


def validate_node_selector_requirement(e: Obj, path: str, *, lenient: bool = False) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = e.get("operator") or "", e.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden_field(f"{path}.values", why))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(f"{path}.values", why))
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    errors += validate_label_name(e.get("key") or "", f"{path}.key")
    if not lenient:
        for i, value in enumerate(values):
            errors += checks.named(f"{path}.values[{i}]", value, names.label_value)
    return errors


def _node_field(e: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    values = e.get("values") or ()
    if e.get("operator") in ("In", "NotIn"):
        if len(values) != 1:
            why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(required(f"{path}.values", why))
    else:
        errors.append(invalid_value(f"{path}.operator", e.get("operator") or "", "not a valid selector operator"))
    if e.get("key") != "metadata.name":
        errors.append(invalid_value(f"{path}.key", e.get("key") or "", "not a valid field selector key"))
    else:
        for i, value in enumerate(values):
            errors += checks.named(f"{path}.values[{i}]", value)
    return errors


def _node_term(term: Obj, path: str, *, lenient: bool = False) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, e in enumerate(term.get("matchExpressions") or ()):
        errors += validate_node_selector_requirement(e, f"{path}.matchExpressions[{i}]", lenient=lenient)
    for i, e in enumerate(term.get("matchFields") or ()):
        errors += _node_field(e, f"{path}.matchFields[{i}]")
    return errors


def validate_node_selector(selector: Obj, path: str) -> list[FieldError]:
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    return [e for i, term in enumerate(terms) for e in _node_term(term, f"{path}.nodeSelectorTerms[{i}]")]


def _weight(path: str, weight: int | None) -> list[FieldError]:
    if 0 < (weight or 0) <= 100:
        return []
    return [invalid_value(f"{path}.weight", weight or 0, "must be in the range 1-100")]


def validate_affinity(affinity: Obj | None, path: str) -> list[FieldError]:
    if not affinity:
        return []
    errors: list[FieldError] = []
    if node := affinity.get("nodeAffinity"):
        at = f"{path}.nodeAffinity"
        if (needed := node.get(REQUIRED)) is not None:
            errors += validate_node_selector(needed, f"{at}.{REQUIRED}")
        for i, term in enumerate(node.get(PREFERRED) or ()):
            where = f"{at}.{PREFERRED}[{i}]"
            errors += _weight(where, term.get("weight"))
            errors += _node_term(term.get("preference") or {}, f"{where}.preference", lenient=True)
    for kind in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(kind) or {}
        at = f"{path}.{kind}"
        for i, term in enumerate(found.get(REQUIRED) or ()):
            errors += _pod_term(term, f"{at}.{REQUIRED}[{i}]")
        for i, weighted in enumerate(found.get(PREFERRED) or ()):
            where = f"{at}.{PREFERRED}[{i}]"
            errors += _weight(where, weighted.get("weight"))
            errors += _pod_term(weighted.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")
    return errors


def _pod_term(term: Obj, path: str) -> list[FieldError]:
    errors = validate_selector(term.get("labelSelector"), f"{path}.labelSelector")
    errors += validate_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for name in term.get("namespaces") or ():
        errors += checks.named(f"{path}.namespace", name, names.dns1123_label)
    errors += _label_keys(term, path, ("matchLabelKeys", "mismatchLabelKeys"))
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    return errors + validate_label_name(key, f"{path}.topologyKey")


def _label_keys(holder: Obj, path: str, kinds: tuple[str, ...]) -> list[FieldError]:
    """matchLabelKeys and mismatchLabelKeys beside a labelSelector. (The server itself adds an expression for each of
    them, so an expression alone is no fault; a label and an expression together are.)"""
    errors: list[FieldError] = []
    selector = holder.get("labelSelector")
    for kind in kinds:
        keys = holder.get(kind) or ()
        if keys and selector is None:
            why = "must not be specified when labelSelector is not set"
            errors.append(forbidden_field(f"{path}.{kind}", why))
        elif keys:
            for i, key in enumerate(keys):
                errors += validate_label_name(key, f"{path}.{kind}[{i}]")
    match = list(holder.get("matchLabelKeys") or ())
    if selector is not None:
        known = set(selector.get("matchLabels") or ())
        for e in selector.get("matchExpressions") or ():
            key = e.get("key")
            if key in match and key in known:
                why = "exists in both matchLabelKeys and labelSelector"
                errors.append(invalid_value(f"{path}[{match.index(key)}]", key, why))
            known.add(key)
    mismatch = set(holder.get("mismatchLabelKeys") or ())
    for i, key in enumerate(match):
        if key in mismatch:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            errors.append(invalid_value(f"{path}.matchLabelKeys[{i}]", key, why))
    return errors


def validate_spreading(constraints: Collection[Obj] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    given = list(constraints or ())
    for i, c in enumerate(given):
        at = f"{path}[{i}]"
        key, action = c.get("topologyKey") or "", c.get("whenUnsatisfiable") or ""
        if (skew := c.get("maxSkew") or 0) <= 0:
            errors.append(invalid_value(f"{at}.maxSkew", skew, "must be greater than zero"))
        if not key:
            errors.append(required(f"{at}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            errors.append(not_supported(f"{at}.whenUnsatisfiable", action, ["DoNotSchedule", "ScheduleAnyway"]))
        if any((o.get("topologyKey") or "", o.get("whenUnsatisfiable") or "") == (key, action) for o in given[i + 1 :]):
            errors.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        if (least := c.get("minDomains")) is not None:
            if least <= 0:
                errors.append(invalid_value(f"{at}.minDomains", least, "must be greater than zero"))
            if action != "DoNotSchedule":
                why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                errors.append(invalid_value(f"{at}.minDomains", least, why))
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if (value := c.get(policy)) is not None and value not in ("Honor", "Ignore"):
                errors.append(not_supported(f"{at}.{policy}", value, ["Honor", "Ignore"]))
        errors += _label_keys(c, at, ("matchLabelKeys",))
        errors += validate_selector(c.get("labelSelector"), f"{at}.labelSelector")
    return errors


def validate_gates(gates: Collection[Obj] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, gate in enumerate(gates or ()):
        name = gate.get("name") or ""
        errors += checks.named(f"{path}[{i}]", name, names.qualified_name)
        if name in seen:
            errors.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
    return errors
