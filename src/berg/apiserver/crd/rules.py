"""`x-kubernetes-validations`: CEL rules of a schema, asked at every value that their schema node describes.

A rule that names `oldSelf` is asked only of updates, where there was a value before. A rule whose value has not
changed is not asked again (ratcheting), unless it is about the change itself.

Source: KEP-2876, k8s.io/apiextensions-apiserver pkg/apiserver/schema/cel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from berg.machinery import status
from berg.machinery.status import FieldError, Obj

_MISSING = object()


@dataclass(slots=True)
class _Node:
    """A schema node that has rules, or leads to one."""

    type: str = ""
    rules: list[_Rule] = field(default_factory=list)
    properties: dict[str, _Node] = field(default_factory=dict)
    items: _Node | None = None
    additional: _Node | None = None
    list_keys: tuple[str, ...] = ()
    transitions: bool = False
    """rules about changes are here or below"""


@dataclass(slots=True)
class _Rule:
    expression: Any
    message: str
    message_expression: Any
    reason: str
    field_path: str
    transition: bool
    optional_old: bool


class Rules:
    def __init__(self, root: _Node | None) -> None:
        self._root = root

    def check(self, obj: Obj, old: Obj | None, *, only: str = "") -> list[FieldError]:
        """`only`: the one property that was written (status)."""
        errors: list[FieldError] = []
        if self._root is None:
            return errors
        if only:
            node = self._root.properties.get(only)
            if node is not None and only in obj:
                _walk(node, only, obj[only], (old or {}).get(only, _MISSING), errors)
            return errors
        _walk(self._root, "", obj, old if old is not None else _MISSING, errors)
        return errors


def compile_rules(schema: Obj) -> Rules:
    return Rules(_compile(schema))


def _compile(schema: Obj) -> _Node | None:
    rules = [_rule(r) for r in schema.get("x-kubernetes-validations") or ()]
    properties = {}
    for name, inner in (schema.get("properties") or {}).items():
        node = _compile(inner)
        if node is not None:
            properties[name] = node
    items = _compile(schema["items"]) if isinstance(schema.get("items"), dict) else None
    more = schema.get("additionalProperties")
    additional = _compile(more) if isinstance(more, dict) else None
    if not (rules or properties or items or additional):
        return None
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    below = [n for n in (*properties.values(), items, additional) if n is not None]
    transitions = any(r.transition for r in rules) or any(n.transitions for n in below)
    return _Node(schema.get("type", "object"), rules, properties, items, additional, keys, transitions)


def _rule(rule: Obj) -> _Rule:
    from berg.apiserver.cel import compile_expression

    expression = compile_expression(rule["rule"])
    message = rule.get("messageExpression")
    return _Rule(
        expression,
        rule.get("message") or "",
        compile_expression(message) if message else None,
        rule.get("reason") or "",
        rule.get("fieldPath") or "",
        "oldSelf" in expression.variables,
        bool(rule.get("optionalOldSelf")),
    )


def _walk(node: _Node, path: str, value: Any, old: Any, errors: list[FieldError], same: bool = False) -> None:
    """`same`: this lies in something that has not changed."""
    if value is None:
        return
    same = same or value == old
    if same and not node.transitions:
        return
    for rule in node.rules:
        if rule.transition or not same:
            _ask(rule, node, path, value, old, errors)
    if isinstance(value, dict):
        for name, inner in value.items():
            child = node.properties.get(name)
            below = f"{path}.{name}" if path else name
            if child is None and node.additional is not None:
                child, below = node.additional, f"{path}[{name}]"
            if child is not None:
                before = old.get(name, _MISSING) if isinstance(old, dict) else _MISSING
                _walk(child, below, inner, before, errors, same)
    elif isinstance(value, list) and node.items is not None:
        known = _by_keys(node, old)
        for i, inner in enumerate(value):
            _walk(node.items, f"{path}[{i}]", inner, known.get(_key(node, inner), _MISSING), errors, same)


def _by_keys(node: _Node, old: Any) -> dict[Any, Any]:
    """What an element of a list map was before."""
    if not node.list_keys or not isinstance(old, list):
        return {}
    return {_key(node, o): o for o in old}


def _key(node: _Node, value: Any) -> Any:
    return tuple(str(value.get(k)) for k in node.list_keys) if isinstance(value, dict) else None


def _ask(rule: _Rule, node: _Node, path: str, value: Any, old: Any, errors: list[FieldError]) -> None:
    from berg.apiserver.cel import EvaluationError

    variables: dict[str, Any] = {"self": value}
    if rule.transition:
        if rule.optional_old:
            import cel

            variables["oldSelf"] = cel.OptionalValue.none() if old is _MISSING else cel.OptionalValue.of(old)
        elif old is _MISSING:
            return
        else:
            variables["oldSelf"] = old
    shown = path or "<nil>"
    try:
        good = rule.expression.evaluate(variables)
    except EvaluationError as e:
        errors.append(status.invalid_value(shown, node.type, f"rule evaluation error: {e}: {rule.expression.text}"))
        return
    if good is True:
        return
    if rule.field_path:
        shown = f"{path}{rule.field_path}" if path else rule.field_path.removeprefix(".")
    errors.append(_fault(rule, shown, node.type, _message(rule, variables)))


def _message(rule: _Rule, variables: dict[str, Any]) -> str:
    from berg.apiserver.cel import EvaluationError

    if rule.message_expression is not None:
        try:
            text = rule.message_expression.evaluate(variables)
        except EvaluationError:
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text.strip()
    return rule.message.strip() or f"failed rule: {rule.expression.text}"


def _fault(rule: _Rule, path: str, value: str, message: str) -> FieldError:
    match rule.reason:
        case "FieldValueRequired":
            return status.required(path, message)
        case "FieldValueForbidden":
            return status.forbidden_field(path, message)
        case "FieldValueDuplicate":
            return FieldError("FieldValueDuplicate", path, value, message)
    return status.invalid_value(path, value, message)
