"""A checked expression as Python closures, one for each node.

What a closure does it adds to the frame's cost; loops and calls look whether that has become too much. A fault is an
exception: `&&`, `||` and the quantifiers go on past one where the rest can decide alone.

Source: cel-spec doc/langdef.md "Evaluation"; cel-go interpreter/interpretable.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from berg.machinery.cel import library
from berg.machinery.cel.meter import PRICES
from berg.machinery.cel.names import unescape_name
from berg.machinery.cel.sizes import NEW_LIST, NEW_MAP, NEW_STRUCT
from berg.machinery.cel.syntax import (
    Call,
    Comprehension,
    Entry,
    Ident,
    List,
    Literal,
    Map,
    Node,
    Select,
    Struct,
)
from berg.machinery.cel.types import Type
from berg.machinery.cel.values import (
    NO_OVERLOAD,
    NONE,
    CostExceeded,
    Duration,
    EvaluationError,
    Object,
    Optional,
    Record,
    UInt,
)


class Frame:
    __slots__ = ("ask", "cost", "limit", "vars")

    def __init__(self, variables: Mapping[str, Any], limit: int, ask: Any = None) -> None:
        self.vars = dict(variables)
        self.limit = limit
        self.cost = 0
        self.ask = ask

    def spend(self, cost: int) -> None:
        self.cost += cost
        if self.cost > self.limit:
            raise CostExceeded


Run = Callable[[Frame], Any]


def program(node: Node) -> Run:
    match node:
        case Literal():
            value = node.value
            return lambda f: value
        case Ident():
            return _ident(node.name, node.type)
        case Select():
            return _ident(node.qualified, node.type) if node.qualified else _select(node)
        case Call():
            return _call(node)
        case List():
            return _list(node)
        case Map():
            return _map(node)
        case Struct():
            return _struct(node)
        case Comprehension():
            from berg.machinery.cel.comprehend import comprehension

            return comprehension(node)
    raise AssertionError(node)


def _convert(t: Type) -> Callable[[Any], Any] | None:
    return t.shape.convert if t.shape is not None else None


def _ident(name: str, t: Type) -> Run:
    from berg.machinery.cel.declarations import type_names

    named = type_names().get(name)
    convert = _convert(t)

    def run(f: Frame) -> Any:
        f.cost += 1
        try:
            value = f.vars[name]
        except KeyError:
            if named is not None:
                return named.params[0]
            raise EvaluationError(f"no such attribute(s): {name}") from None
        return convert(value) if convert is not None else value

    return run


# ---- fields and elements


def _select(node: Select) -> Run:
    operand, name = program(node.operand), node.name
    shape = node.operand.type.shape
    raw = _raw(shape, name)
    null_is_absent = shape is not None and node.operand.type.kind == "struct"
    if node.test:

        def test(f: Frame) -> Any:
            of = operand(f)
            return _has(of, raw) and not (null_is_absent and of[raw] is None)

        return test
    convert = _convert(node.type)

    def run(f: Frame) -> Any:
        of = operand(f)
        f.cost += 1
        if isinstance(of, dict) and raw in of:
            value = of[raw]
        else:
            value = _field(of, raw)
        if value is None and null_is_absent:
            raise EvaluationError(f"no such key: {name}")
        return convert(value) if convert is not None else value

    return run


def _raw(shape: Any, name: str) -> str:
    """The field's name in JSON."""
    return str(shape.fields[name][0]) if shape is not None and name in shape.fields else name


def _has(of: Any, name: str) -> bool:
    if isinstance(of, Optional):
        return of.present and _has(of.value, name)
    if isinstance(of, dict):
        return name in of
    if isinstance(of, Record):
        return of.has(name)
    raise EvaluationError(NO_OVERLOAD)


def _field(of: Any, name: str) -> Any:
    if isinstance(of, dict):
        if name in of:
            return of[name]
        raise EvaluationError(f"no such key: {name}")
    if isinstance(of, Optional):
        return _optional_field(of, name)
    if isinstance(of, Record):
        return of.get(name)
    raise EvaluationError(NO_OVERLOAD)


def _optional_field(of: Any, name: str) -> Optional:
    if isinstance(of, Optional):
        if not of.present:
            return NONE
        of = of.value
    return Optional(_field(of, name)) if _has(of, name) else NONE


def _element(of: Any, key: Any) -> Any:
    if isinstance(of, list):
        if type(key) is float and key.is_integer():
            key = int(key)
        if not isinstance(key, int) or isinstance(key, bool):
            raise EvaluationError(f"unsupported index type '{library.kind(key)}' in list")
        if not 0 <= key < len(of):
            raise EvaluationError(f"index out of bounds: {int(key)}")
        return of[key]
    if isinstance(of, dict):
        try:
            return of[key]
        except (KeyError, TypeError):
            raise EvaluationError(f"no such key: {library.show(key)}") from None
    if isinstance(of, Optional):
        return _optional_element(of, key)
    if isinstance(of, Record):
        return of.get(str(key))
    raise EvaluationError(NO_OVERLOAD)


def _optional_element(of: Any, key: Any) -> Optional:
    if isinstance(of, Optional):
        if not of.present:
            return NONE
        of = of.value
    if isinstance(of, dict):
        return Optional(of[key]) if key in of else NONE
    if isinstance(of, list):
        return Optional(of[key]) if isinstance(key, int) and 0 <= key < len(of) else NONE
    raise EvaluationError(NO_OVERLOAD)


# ---- calls


def _call(node: Call) -> Run:
    args = [program(a) for a in ([node.target, *node.args] if node.target is not None else node.args)]
    special = _SPECIAL.get(node.function)
    if special is not None:
        return special(node, args)
    function, price = library.function(node.function), PRICES.get(node.function)
    if len(args) == 2 and price is None:
        first, second = args

        def two(f: Frame) -> Any:
            a, b = first(f), second(f)
            f.cost += 1
            return function(a, b)

        return two

    def run(f: Frame) -> Any:
        given = [a(f) for a in args]
        f.spend(price(given) if price is not None else 1)
        return function(*given)

    return run


def truth(value: Any) -> bool:
    if type(value) is not bool:
        raise EvaluationError(NO_OVERLOAD)
    return value


def _junction(node: Call, args: list[Run]) -> Run:
    left, right = args
    decisive = node.function == "_||_"

    def run(f: Frame) -> Any:
        try:
            if truth(left(f)) is decisive:
                return decisive
        except CostExceeded:
            raise
        except EvaluationError:
            if truth(right(f)) is decisive:
                return decisive
            raise
        return truth(right(f))

    return run


def _conditional(node: Call, args: list[Run]) -> Run:
    test, then, other = args
    return lambda f: then(f) if truth(test(f)) else other(f)


def _index(node: Call, args: list[Run]) -> Run:
    of, key = args
    convert = _convert(node.type)

    def run(f: Frame) -> Any:
        value = _element(of(f), key(f))
        f.cost += 1
        return convert(value) if convert is not None else value

    return run


def _optional_index(node: Call, args: list[Run]) -> Run:
    of, key = args

    def run(f: Frame) -> Any:
        f.cost += 1
        return _optional_element(of(f), key(f))

    return run


def _optional_select(node: Call, args: list[Run]) -> Run:
    of = args[0]
    field = node.args[1]
    assert isinstance(field, Literal)
    name = field.value
    inner = node.type.params[0] if node.type.params else node.type
    convert = _convert(inner)
    operand = node.args[0].type
    shape = (operand.params[0] if operand.kind == "opaque" else operand).shape
    raw = _raw(shape, name)

    def run(f: Frame) -> Any:
        f.cost += 1
        found = _optional_field(of(f), raw)
        return Optional(convert(found.value)) if convert is not None and found.present else found

    return run


def _or(node: Call, args: list[Run]) -> Run:
    first, second = args
    gives_value = node.function == "orValue"

    def run(f: Frame) -> Any:
        found = first(f)
        f.cost += 1
        if not isinstance(found, Optional):
            raise EvaluationError(NO_OVERLOAD)
        if found.present:
            return found.value if gives_value else found
        return second(f)

    return run


def _dyn(node: Call, args: list[Run]) -> Run:
    return args[0]


_ZEROS = {"duration": Duration(0), "double": 0.0, "uint": UInt(0)}


def _sum(node: Call, args: list[Run]) -> Run:
    """Of nothing it is the zero of the list's type."""
    values, price, total = args[0], PRICES["sum"], library.function("sum")
    zero = _ZEROS.get(node.type.kind, 0)

    def run(f: Frame) -> Any:
        of = values(f)
        f.spend(price([of]))
        return total(of) if of else zero

    return run


def _check(node: Call, args: list[Run]) -> Run:
    function, price = library.function("check"), PRICES["check"]

    def run(f: Frame) -> Any:
        given = [a(f) for a in args]
        f.spend(price(given))
        return function(*given, f.ask)

    return run


_SPECIAL: dict[str, Callable[[Call, list[Run]], Run]] = {
    "_&&_": _junction,
    "_||_": _junction,
    "_?_:_": _conditional,
    "_[_]": _index,
    "_[?_]": _optional_index,
    "_?._": _optional_select,
    "or": _or,
    "orValue": _or,
    "dyn": _dyn,
    "check": _check,
    "sum": _sum,
}


# ---- aggregates


def _list(node: List) -> Run:
    elements, optional = [program(e) for e in node.elements], node.optional
    if not optional and all(isinstance(e, Literal) for e in node.elements):
        constant = [e.value for e in node.elements if isinstance(e, Literal)]
        return lambda f: constant
    if not optional:

        def plain(f: Frame) -> Any:
            f.cost += NEW_LIST
            return [e(f) for e in elements]

        return plain

    def run(f: Frame) -> Any:
        f.spend(NEW_LIST)
        out = []
        for i, element in enumerate(elements):
            value = element(f)
            if i not in optional:
                out.append(value)
            elif _present(value):
                out.append(value.value)
        return out

    return run


def _present(value: Any) -> bool:
    if not isinstance(value, Optional):
        raise EvaluationError(f"cannot initialize optional entry from non-optional value {library.show(value)}")
    return value.present


def _entries(entries: list[Entry], keys: list[Run]) -> Callable[[Frame], dict[Any, Any]]:
    values = [(key, program(e.value), e.optional) for key, e in zip(keys, entries, strict=True)]

    def run(f: Frame) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for key, value, optional in values:
            name, found = key(f), value(f)
            if optional:
                if not _present(found):
                    continue
                found = found.value
            if name in out:
                raise EvaluationError(f"Failed with repeated key: {library.show(name)}")
            out[name] = found
        return out

    return run


def _map(node: Map) -> Run:
    make = _entries(node.entries, [program(e.key) for e in node.entries])
    constant = all(isinstance(n, Literal) for e in node.entries for n in (e.key, e.value))
    cost = 0 if constant else NEW_MAP

    def run(f: Frame) -> Any:
        f.cost += cost
        return make(f)

    return run


def _struct(node: Struct) -> Run:
    make = _entries(node.entries, [_constant(unescape_name(e.key)) for e in node.entries])
    name = node.name

    def run(f: Frame) -> Any:
        f.cost += NEW_STRUCT
        return Object(name, make(f))

    return run


def _constant(value: Any) -> Run:
    return lambda f: value
