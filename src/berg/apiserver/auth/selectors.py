"""Selectors in questions of authorization: a list may be allowed only for what a selector leaves of it.

A request has them as text, a SubjectAccessReview as text or as requirements. What cannot be read is left out, since
requirements only narrow: the question is then asked for more, never for less.

Source: KEP-4601; kubernetes pkg/registry/authorization/util, pkg/apis/authorization/validation.
"""

from __future__ import annotations

from collections.abc import Iterable

from berg.machinery import fields, names
from berg.machinery.labels import Requirement, Selector
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required

_LABELS = {"in": "In", "notin": "NotIn", "exists": "Exists", "!": "DoesNotExist"}
_FROM_LABELS = {v: k for k, v in _LABELS.items()}


def field_requirements(text: str) -> list[Obj]:
    try:
        found = fields.parse(text).requirements
    except ValueError:
        return []
    return [{"key": r.field, "operator": "In" if r.equal else "NotIn", "values": [r.value]} for r in found]


def label_requirements(text: str) -> list[Obj]:
    try:
        found = Selector.parse(text).requirements
    except ValueError:
        return []
    return [
        {"key": r.key, "operator": _LABELS[r.operator], **({"values": sorted(r.values)} if r.values else {})}
        for r in found
        if r.operator in _LABELS
    ]


def field_text(selector: Obj) -> tuple[str, str]:
    """A review's selector as text, and what was left out ("" nothing, "partially ", "ignored")."""
    raw = selector.get("rawSelector")
    if raw:
        try:
            fields.parse(raw)
        except ValueError:
            return "", "ignored"
        return raw, ""
    kept: list[fields.FieldRequirement] = []
    requirements = selector.get("requirements") or []
    for r in requirements:
        values = r.get("values") or []
        if len(values) == 1 and r.get("operator") in ("In", "NotIn"):
            kept.append(fields.FieldRequirement(r.get("key") or "", r["operator"] == "In", values[0]))
    return str(fields.FieldSelector(tuple(kept))), _left_out(len(kept), len(requirements))


def label_text(selector: Obj) -> tuple[str, str]:
    raw = selector.get("rawSelector")
    if raw:
        try:
            Selector.parse(raw)
        except ValueError:
            return "", "ignored"
        return raw, ""
    kept: list[Requirement] = []
    requirements = selector.get("requirements") or []
    for r in requirements:
        operator = _FROM_LABELS.get(r.get("operator") or "")
        if operator is not None:
            kept.append(Requirement(r.get("key") or "", operator, frozenset(r.get("values") or ())))
    return ",".join(map(str, kept)), _left_out(len(kept), len(requirements))


def _left_out(kept: int, given: int) -> str:
    return "" if kept == given else "partially ignored" if kept else "ignored"


def validate(attributes: Obj, path: str) -> Iterable[FieldError]:
    for name in ("fieldSelector", "labelSelector"):
        selector = attributes.get(name)
        if selector is None:
            continue
        at = f"{path}.{name}"
        raw, requirements = selector.get("rawSelector"), selector.get("requirements")
        if raw and requirements:
            yield invalid_value(f"{at}.rawSelector", raw, "may not specified at the same time as requirements")
        if not raw and not requirements:
            why = f"when {at} is specified, requirements or rawSelector is required"
            yield required(f"{at}.requirements", why)
        for i, requirement in enumerate(requirements or ()):
            yield from _requirement(requirement, f"{at}.requirements[{i}]", labels=name == "labelSelector")


def _requirement(requirement: Obj, path: str, *, labels: bool) -> Iterable[FieldError]:
    operator, values, key = requirement.get("operator"), requirement.get("values") or [], requirement.get("key") or ""
    if not labels and not key:
        yield required(f"{path}.key", "must be specified")
    if operator in ("In", "NotIn") and not values:
        yield required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    if operator in ("Exists", "DoesNotExist") and values:
        yield forbidden_field(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    if not labels:
        return
    for fault in names.qualified_name(key):
        yield invalid_value(f"{path}.key", key, fault)
    for i, value in enumerate(values):
        for fault in names.label_value(value):
            yield invalid_value(f"{path}.values[{i}]", value, fault)
