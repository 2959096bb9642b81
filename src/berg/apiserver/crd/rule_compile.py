"""Rules of a schema when a definition is written: they compile against the schema's types, and what they may cost at
worst fits the limits.

A rule costs what one evaluation may cost, times how often there can be a value that it is asked of: the product of the
limits on the way to it (`maxItems`, `maxProperties`), or, where one has none, as often as such values fit a request.

Source: k8s.io/apiextensions-apiserver pkg/apis/apiextensions/validation, cel_validation.go;
pkg/apiserver/schema/cel/compilation.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from berg.machinery import status
from berg.machinery.cel import CompileError, Environment, Expression
from berg.machinery.cel.names import escape_name
from berg.machinery.cel.schema import LARGEST_REQUEST, Shape, shape_of
from berg.machinery.cel.sizes import INFINITE, times
from berg.machinery.cel.types import optional_of
from berg.machinery.status import FieldError, Obj

PER_RULE = 10_000_000
PER_SCHEMA = 100_000_000
_NAMED = 4
"""how many of the most expensive rules are named when a schema is too expensive"""


def environment(shape: Shape, *, optional_old: bool) -> Environment:
    old = optional_of(shape.type) if optional_old else shape.type
    return Environment({"self": shape.type, "oldSelf": old})


@dataclass(slots=True)
class Total:
    """Of all rules of one schema."""

    cost: int = 0
    dearest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: str, cost: int) -> None:
        self.cost = min(self.cost + cost, INFINITE)
        if cost >= PER_SCHEMA // 100:
            self.dearest = sorted([*self.dearest, (cost, path)], key=lambda found: -found[0])[:_NAMED]

    def faults(self, path: str) -> list[FieldError]:
        if self.cost <= PER_SCHEMA:
            return []
        why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        named = [status.forbidden_field(at, why) for _, at in self.dearest]
        return [*named, status.forbidden_field(path, _too_dear(what, self.cost, PER_SCHEMA))]


@dataclass(slots=True)
class Place:
    """Where a schema node stands."""

    shape: Shape | None
    """None where no rule is at or above"""
    most: int | None
    """how often there can be such a value; None without limit"""
    total: Total
    uncorrelatable: str = ""
    """the nearest schema above whose values are not known from one version of the object to the next"""

    @classmethod
    def of_root(cls, schema: Obj) -> Place:
        return cls(shape_of(schema, root=True) if schema.get("x-kubernetes-validations") else None, 1, Total())

    def below(self, schema: Obj, path: str, inner: Obj, name: str | None) -> Place:
        """The place of `inner` in `schema` at `path`; `name`: of a property."""
        shape = None
        if self.shape is not None:
            found = self.shape.fields.get(escape_name(name)) if name is not None else None
            shape = found[1] if found is not None else self.shape.element if name is None else None
        if shape is None and (self.shape is not None or inner.get("x-kubernetes-validations")):
            shape = shape_of(inner, root=bool(inner.get("x-kubernetes-embedded-resource")))
        limit = _repeats(schema)
        most = times(self.most, limit) if self.most is not None and limit is not None else None
        return Place(shape, most, self.total, self.uncorrelatable or _uncorrelatable(schema, path, name))


def _uncorrelatable(schema: Obj, path: str, name: str | None) -> str:
    if name is not None:
        return "" if schema.get("x-kubernetes-map-type") in (None, "granular", "atomic") else path
    if schema.get("type") != "array":
        return ""
    return "" if schema.get("x-kubernetes-list-type") == "map" else path


def _repeats(schema: Obj) -> int | None:
    limit: int | None = 1
    if schema.get("type") == "array":
        limit = schema.get("maxItems")
    elif schema.get("type") == "object" and schema.get("additionalProperties") is not None:
        limit = schema.get("maxProperties")
    return max(limit, 0) if limit is not None else None


def faults(schema: Obj, path: str, place: Place) -> list[FieldError]:
    """Of a node's own rules."""
    errors: list[FieldError] = []
    shape = place.shape
    if shape is None:
        return errors
    for i, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        at = f"{path}.x-kubernetes-validations[{i}]"
        env = environment(shape, optional_old=bool(rule.get("optionalOldSelf")))
        try:
            compiled = _compiled(env, rule.get("rule") or "", "bool")
        except _Refused as e:
            errors.append(status.invalid_value(f"{at}.rule", _shown(rule), str(e)))
            continue
        often = place.most if place.most is not None else LARGEST_REQUEST // (shape.min_size + 1)
        errors += _priced(f"{at}.rule", "estimated rule cost", times(compiled.worst_cost(), often), place.total)
        errors += _message(env, rule, at, place.total)
        errors += _old(compiled, rule, at, place)
    return errors


class _Refused(ValueError):
    pass


def _compiled(env: Environment, text: str, wanted: str, of: str = "") -> Expression:
    try:
        compiled = env.compile(text)
    except CompileError as e:
        raise _Refused(f"{of}{e.stage}: {e}") from None
    if compiled.result.kind != wanted:
        what = "cel expression must evaluate to a bool" if wanted == "bool" else f"{of}must evaluate to a string"
        raise _Refused(what)
    return compiled


def _message(env: Environment, rule: Obj, at: str, total: Total) -> list[FieldError]:
    text = rule.get("messageExpression")
    if not text:
        return []
    try:
        compiled = _compiled(env, text, "string", "messageExpression ")
    except _Refused as e:
        return [status.invalid_value(f"{at}.messageExpression", _shown(rule), str(e))]
    return _priced(f"{at}.messageExpression", "estimated messageExpression cost", compiled.worst_cost(), total)


def _priced(path: str, what: str, cost: int, total: Total) -> list[FieldError]:
    total.add(path, cost)
    return [status.forbidden_field(path, _too_dear(what, cost, PER_RULE))] if cost > PER_RULE else []


def _old(compiled: Expression, rule: Obj, at: str, place: Place) -> list[FieldError]:
    if "oldSelf" in compiled.names:
        if place.uncorrelatable:
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.uncorrelatable}"
            return [status.invalid_value(f"{at}.rule", rule["rule"], why)]
    elif rule.get("optionalOldSelf") is not None:
        why = "may not be set if oldSelf is not used in rule"
        return [status.invalid_value(f"{at}.optionalOldSelf", rule["optionalOldSelf"], why)]
    return []


def _shown(rule: Obj) -> Any:
    """As Go shows its struct."""
    told = {
        "Rule": "",
        "Message": "",
        "MessageExpression": "",
        "Reason": None,
        "FieldPath": "",
        "OptionalOldSelf": None,
    }
    return told | {name: rule[key] for name in told if (key := name[0].lower() + name[1:]) in rule}


def _too_dear(what: str, cost: int, limit: int) -> str:
    over = cost / limit
    factor = "more than 100x" if over > 100 else f"{over:f}x" if over < 1.5 else f"{over:.1f}x"
    hint = "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings"
    return f"{what} exceeds budget by factor of {factor} ({hint} are declared)"
