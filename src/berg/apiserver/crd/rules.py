"""`x-kubernetes-validations`: CEL rules of a schema, asked at every value that their schema node describes.

A rule that names `oldSelf` is asked only of updates, where there was a value before. What another rule finds wrong
with a value that has not changed is only warned of (ratcheting). All rules together have a budget: when it is spent,
the object is refused, so that no rule and no object can hold up the server.

Source: KEP-2876, k8s.io/apiextensions-apiserver pkg/apiserver/schema/cel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from berg.apiserver.crd.figures import COMPILED, EVALUATED
from berg.machinery import status
from berg.machinery.status import FieldError, Obj

if TYPE_CHECKING:
    from berg.machinery.cel import Expression
    from berg.machinery.cel.schema import Shape

_MISSING = object()
_LONGEST_MESSAGE = 5 * 1024
_SPENT = "validation failed due to running out of cost budget, no further validation rules will be run"


@dataclass(slots=True)
class _Node:
    """A schema node that has rules, or leads to one."""

    type: str = ""
    rules: list[_Rule] = field(default_factory=list)
    properties: dict[str, _Node] = field(default_factory=dict)
    items: _Node | None = None
    additional: _Node | None = None
    list_keys: tuple[str, ...] = ()


@dataclass(slots=True)
class _Rule:
    expression: Expression | None
    """None: it does not compile, as the message says"""
    message: str
    message_expression: Expression | None
    reason: str
    field_path: str
    transition: bool
    optional_old: bool

    @property
    def shown(self) -> str:
        return self.message or (self.expression.text.strip() if self.expression is not None else "")


class _Spent(Exception):
    """Nothing more may be asked."""


class Rules:
    def __init__(self, root: _Node | None) -> None:
        self._root = root

    def __bool__(self) -> bool:
        return self._root is not None

    def check(self, obj: Any, old: Any, warnings: list[str] | None = None, *, at: str = "") -> list[FieldError]:
        """`warnings`: where it is told what was wrong before and has not changed; `at`: where the object stands."""
        if self._root is None:
            return []
        asking = _Asking(warnings)
        try:
            asking.walk(self._root, at, obj, old if old is not None else _MISSING)
        except _Spent:
            pass
        return asking.errors


def compile_rules(schema: Obj, *, root: bool = True) -> Rules:
    """`root`: the schema is of a whole object."""
    if not _mentions_rules(schema):
        return Rules(None)
    from berg.machinery.cel.schema import shape_of

    return Rules(_compile(schema, shape_of(schema, root=root)))


def _mentions_rules(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return bool(schema.get("x-kubernetes-validations")) or any(map(_mentions_rules, inner))


def _compile(schema: Obj, shape: Shape | None) -> _Node | None:
    """What has no shape has no rules: expressions cannot speak of it."""
    if shape is None:
        return None
    from berg.machinery.cel.names import escape_name

    rules: list[_Rule] = []
    if texts := schema.get("x-kubernetes-validations"):
        started = perf_counter()
        rules = [_rule(r, shape) for r in texts]
        COMPILED.observe(perf_counter() - started)
    properties = {}
    for name, inner in (schema.get("properties") or {}).items():
        field_ = shape.fields.get(escape_name(name))
        node = _compile(inner, field_[1]) if field_ is not None else None
        if node is not None:
            properties[name] = node
    items = _compile(schema["items"], shape.element) if isinstance(schema.get("items"), dict) else None
    more = schema.get("additionalProperties")
    additional = _compile(more, shape.element) if isinstance(more, dict) else None
    if not (rules or properties or items or additional):
        return None
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    return _Node(schema.get("type", "object"), rules, properties, items, additional, keys)


def _rule(rule: Obj, shape: Shape) -> _Rule:
    from berg.apiserver.crd.rule_compile import environment
    from berg.machinery.cel import CompileError

    env = environment(shape, optional_old=bool(rule.get("optionalOldSelf")))
    message = rule.get("messageExpression")
    try:
        expression = env.compile(rule["rule"])
        message_expression = env.compile(message) if message else None
    except CompileError as e:  # stored when other rules were let in
        return _Rule(None, f"{e.stage}: {e}", None, "", "", transition=False, optional_old=False)
    return _Rule(
        expression,
        (rule.get("message") or "").strip(),
        message_expression,
        rule.get("reason") or "",
        rule.get("fieldPath") or "",
        "oldSelf" in expression.names,
        bool(rule.get("optionalOldSelf")),
    )


class _Asking:
    def __init__(self, warnings: list[str] | None) -> None:
        from berg.machinery.cel.meter import PER_REQUEST

        self.warnings = warnings if warnings is not None else []
        self.errors: list[FieldError] = []
        self.budget = PER_REQUEST

    def walk(self, node: _Node, path: str, value: Any, old: Any, same: bool = False) -> None:
        """`same`: this lies in something that has not changed. Raises _Spent."""
        if value is None:
            return
        same = same or value == old
        if node.rules:
            started = perf_counter()
            for rule in node.rules:
                self._ask(rule, node, path, value, old, same)
            EVALUATED.observe(perf_counter() - started)
        if isinstance(value, dict):
            for name, inner in value.items():
                child = node.properties.get(name)
                below = f"{path}.{name}" if path else name
                if child is None and node.additional is not None:
                    child, below = node.additional, f"{path}[{name}]"
                if child is not None:
                    before = old.get(name, _MISSING) if isinstance(old, dict) else _MISSING
                    self.walk(child, below, inner, before, same)
        elif isinstance(value, list) and node.items is not None:
            known = _by_keys(node, old)
            for i, inner in enumerate(value):
                self.walk(node.items, f"{path}[{i}]", inner, known.get(_key(node, inner), _MISSING), same)

    def _fault(self, path: str, node: _Node, why: str) -> None:
        self.errors.append(status.invalid_value(path, node.type, why))

    def _ask(self, rule: _Rule, node: _Node, path: str, value: Any, old: Any, same: bool) -> None:
        from berg.machinery.cel import CostExceeded, EvaluationError

        variables = _variables(rule, value, old)
        if variables is None:
            return
        shown = path or "<nil>"
        if rule.expression is None:
            self._fault(shown, node, f"rule compile error: {rule.message}")
            return
        if self.budget <= 0:
            self._fault(shown, node, _SPENT)
            raise _Spent
        try:
            good, cost = rule.expression.measured(variables)
            self._spend(cost, shown, node)
        except EvaluationError as e:
            self._spend(e.cost, shown, node)
            self._fault(shown, node, _why(e, rule))
            if isinstance(e, CostExceeded):
                raise _Spent from None
            return
        if good is True:
            return
        if rule.field_path:
            shown = f"{path}{rule.field_path}" if path else rule.field_path.removeprefix(".")
        message = self._message(rule, variables, shown, node)
        told = status.OMITTED if isinstance(value, dict | list) else value
        refusal = _refusal(rule.reason, shown, told, message)
        if same and not rule.transition:
            self.warnings.append(str(refusal))
        else:
            self.errors.append(refusal)

    def _spend(self, cost: int, path: str, node: _Node) -> None:
        if cost > self.budget:
            self._fault(path, node, _SPENT)
            raise _Spent
        self.budget -= cost

    def _message(self, rule: _Rule, variables: dict[str, Any], path: str, node: _Node) -> str:
        from berg.machinery.cel import CostExceeded, EvaluationError

        default = rule.message or f"failed rule: {rule.shown}"
        if rule.message_expression is None:
            return default
        try:
            text, cost = rule.message_expression.measured(variables)
        except CostExceeded:
            why = "no further validation rules will be run due to call cost exceeds limit for messageExpression: "
            self._fault(path, node, f'{why}"{rule.message_expression.text}"')
            raise _Spent from None
        except EvaluationError as e:
            self.budget -= e.cost
            return default
        if cost > self.budget:
            why = "messageExpression evaluation failed due to running out of cost budget, no further validation rules "
            self._fault(path, node, f"{why}will be run")
            raise _Spent
        self.budget -= cost
        text = text.strip()
        good = text and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE
        return str(text) if good else default


def _variables(rule: _Rule, value: Any, old: Any) -> dict[str, Any] | None:
    """None: the rule is about a change, and there was nothing before."""
    variables: dict[str, Any] = {"self": value}
    if rule.transition:
        if rule.optional_old:
            from berg.machinery.cel.values import NONE, Optional

            variables["oldSelf"] = NONE if old is _MISSING or old is None else Optional(old)
        elif old is _MISSING or old is None:
            return None
        else:
            variables["oldSelf"] = old
    return variables


def _why(e: Exception, rule: _Rule) -> str:
    text = str(e)
    if text.startswith("no such overload"):
        why = "call arguments did not match a supported operator, function or macro signature for rule"
        return f"'{text}': {why}: {rule.shown}"
    if text.startswith("operation cancelled"):
        why = "no further validation rules will be run due to call cost exceeds limit for rule"
        return f"'{text}': {why}: {rule.shown}"
    return f"{text} evaluating rule: {rule.shown}"


def _by_keys(node: _Node, old: Any) -> dict[Any, Any]:
    """What an element of a list map was before."""
    if not node.list_keys or not isinstance(old, list):
        return {}
    return {_key(node, o): o for o in old}


def _key(node: _Node, value: Any) -> Any:
    return tuple(str(value.get(k)) for k in node.list_keys) if isinstance(value, dict) else None


def _refusal(reason: str, path: str, value: Any, message: str) -> FieldError:
    match reason:
        case "FieldValueRequired":
            return status.required(path, message)
        case "FieldValueForbidden":
            return status.forbidden_field(path, message)
        case "FieldValueDuplicate":
            return status.duplicate(path, value)
    return status.invalid_value(path, value, message)
