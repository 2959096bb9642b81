"""Calls that stand for more than a call: `has`, `all`, `exists`, `map`, `filter`, `optMap`, `sortBy` …

A macro is known by its name, by whether it has a receiver, and by the number of its arguments. Most become
comprehensions: the same folds as cel-go's, because what they may cost is estimated from these.

Source: cel-go parser/macro.go, ext/comprehensions.go, ext/lists.go, cel/library.go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from berg.machinery.cel.syntax import Call, Comprehension, Fault, Ident, List, Literal, Macro, Map, Node, Select

ACCUMULATOR = "@result"

Expand = Callable[[int, str, Node, list[Node]], Node]


def expanded(at: int, name: str, target: Node | None, args: list[Node]) -> Node | None:
    """None where this is a call like any other. Raises Fault."""
    if target is None:
        return _has(at, args) if name == "has" and len(args) == 1 else None
    expand = _MACROS.get((name, len(args)))
    return expand(at, name, target, args) if expand is not None else None


def _has(at: int, args: list[Node]) -> Node:
    selected = args[0]
    if not isinstance(selected, Select) or selected.test:
        raise Fault(selected.at, "invalid argument to has() macro")
    return Select(at, selected.operand, selected.name, test=True)


def _variable(node: Node, fault: str = "argument must be a simple name") -> str:
    if not isinstance(node, Ident):
        raise Fault(node.at, fault)
    if node.name in (ACCUMULATOR, "__result__"):
        raise Fault(node.at, "iteration variable overwrites accumulator variable")
    return node.name


def _pair(args: list[Node]) -> tuple[str, str]:
    first, second = _variable(args[0]), _variable(args[1])
    if first == second:
        raise Fault(args[1].at, f"duplicate variable name: {first}")
    return first, second


def _accu(at: int) -> Ident:
    return Ident(at, ACCUMULATOR)


def _call(at: int, function: str, *args: Node) -> Call:
    return Call(at, function, None, list(args))


def _quantifier(at: int, name: str, target: Node, args: list[Node]) -> Node:
    if len(args) == 3:
        var, var2 = _pair(args)
    else:
        var, var2 = _variable(args[0]), ""
    test = args[-1]
    result: Node = _accu(at)
    match name:
        case "all":
            init, condition = Literal(at, True), _call(at, "@not_strictly_false", _accu(at))
            step = _call(at, "_&&_", _accu(at), test)
        case "exists":
            init = Literal(at, False)
            condition = _call(at, "@not_strictly_false", _call(at, "!_", _accu(at)))
            step = _call(at, "_||_", _accu(at), test)
        case _:
            name = "exists_one"
            init = Literal(at, 0)
            step = _call(at, "_?_:_", test, _call(at, "_+_", _accu(at), Literal(at, 1)), _accu(at))
            result = _call(at, "_==_", _accu(at), Literal(at, 1))
            return _fold(at, target, var, var2, init, Literal(at, True), step, result, Macro(name, test, None))
    return _fold(at, target, var, var2, init, condition, step, result, Macro(name, test, None))


def _fold(
    at: int,
    over: Node,
    var: str,
    var2: str,
    init: Node,
    condition: Node,
    step: Node,
    result: Node,
    macro: Macro,
) -> Comprehension:
    return Comprehension(at, over, var, var2, ACCUMULATOR, init, condition, step, result, macro)


def _gathered(at: int, target: Node, var: str, var2: str, init: Node, step: Node, macro: Macro) -> Node:
    if macro.test is not None:
        step = _call(at, "_?_:_", macro.test, step, _accu(at))
    return _fold(at, target, var, var2, init, Literal(at, True), step, _accu(at), macro)


def _map(at: int, name: str, target: Node, args: list[Node]) -> Node:
    var = _variable(args[0], "argument is not an identifier")
    test = args[1] if len(args) == 3 else None
    step = _call(at, "_+_", _accu(at), List(at, [args[-1]]))
    return _gathered(at, target, var, "", List(at, []), step, Macro("map", test, args[-1]))


def _filter(at: int, name: str, target: Node, args: list[Node]) -> Node:
    var = _variable(args[0], "argument is not an identifier")
    step = _call(at, "_+_", _accu(at), List(at, [args[0]]))
    return _gathered(at, target, var, "", List(at, []), step, Macro("map", args[1], args[0]))


def _transform_list(at: int, name: str, target: Node, args: list[Node]) -> Node:
    var, var2 = _pair(args)
    test = args[2] if len(args) == 4 else None
    step = _call(at, "_+_", _accu(at), List(at, [args[-1]]))
    return _gathered(at, target, var, var2, List(at, []), step, Macro("map", test, args[-1]))


def _transform_map(at: int, name: str, target: Node, args: list[Node]) -> Node:
    var, var2 = _pair(args)
    test = args[2] if len(args) == 4 else None
    step = _call(at, "cel.@mapInsert", _accu(at), Ident(at, var), args[-1])
    return _gathered(at, target, var, var2, Map(at, []), step, Macro("transformMap", test, args[-1]))


def _transform_entry(at: int, name: str, target: Node, args: list[Node]) -> Node:
    var, var2 = _pair(args)
    test = args[2] if len(args) == 4 else None
    step = _call(at, "cel.@mapInsert", _accu(at), args[-1])
    return _gathered(at, target, var, var2, Map(at, []), step, Macro("transformMapEntry", test, args[-1]))


def _bound(at: int, name: str, value: Node, body: Node) -> Node:
    """`body` with a variable that has this value."""
    macro = Macro("bind", None, body)
    return Comprehension(at, List(at, []), "#unused", "", name, value, Literal(at, False), Ident(at, name), body, macro)


def _opt_map(at: int, name: str, target: Node, args: list[Node]) -> Node:
    if not isinstance(args[0], Ident):
        raise Fault(args[0].at, f"{name}() variable name must be a simple identifier")
    there = Call(at, "hasValue", target, [])
    body = _bound(at, args[0].name, Call(at, "value", copy.deepcopy(target), []), args[1])
    if name == "optMap":
        body = _call(at, "optional.of", body)
    return _call(at, "_?_:_", there, body, _call(at, "optional.none"))


def _sort_by(at: int, name: str, target: Node, args: list[Node]) -> Node:
    if isinstance(target, Literal | Map):
        why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression"
        raise Fault(target.at, why)
    source = "@__sortBy_input__"
    keys = _map(at, "map", Ident(at, source), args)
    return _bound(at, source, target, Call(at, "@sortByAssociatedKeys", Ident(at, source), [keys]))


_MACROS: dict[tuple[str, int], Expand] = {
    **{(name, n): _quantifier for name in ("all", "exists", "exists_one", "existsOne") for n in (2, 3)},
    ("map", 2): _map,
    ("map", 3): _map,
    ("filter", 2): _filter,
    ("transformList", 3): _transform_list,
    ("transformList", 4): _transform_list,
    ("transformMap", 3): _transform_map,
    ("transformMap", 4): _transform_map,
    ("transformMapEntry", 3): _transform_entry,
    ("transformMapEntry", 4): _transform_entry,
    ("optMap", 2): _opt_map,
    ("optFlatMap", 2): _opt_map,
    ("sortBy", 2): _sort_by,
}
