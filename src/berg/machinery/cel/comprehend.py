"""Comprehensions as Python loops: `all`, `exists`, `map`, `filter` and their kin, and variables with a value (`bind`).

The folds that macros become are what they cost by; evaluated are the macro's own parts. Variables are put into the
frame and what they hid is put back.

Source: cel-spec doc/langdef.md "Macros".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.machinery.cel import library
from berg.machinery.cel.evaluate import Frame, Run, program, truth
from berg.machinery.cel.sizes import NEW_LIST
from berg.machinery.cel.syntax import Comprehension, Literal
from berg.machinery.cel.values import NO_OVERLOAD, CostExceeded, EvaluationError


def comprehension(node: Comprehension) -> Run:
    macro = node.macro
    if macro.name == "bind":
        return _bind(node)
    over = program(node.range)
    items = _items(node)
    body = _BODIES[macro.name](
        program(macro.test) if macro.test is not None else None,
        program(macro.body) if macro.body is not None else None,
        node,
    )
    names = (node.var, node.var2) if node.var2 else (node.var,)

    def run(f: Frame) -> Any:
        values = over(f)
        f.cost += 1
        before = {n: f.vars[n] for n in names if n in f.vars}
        try:
            return body(f, items(values))
        finally:
            for n in names:
                if n in before:
                    f.vars[n] = before[n]
                else:
                    f.vars.pop(n, None)

    return run


Items = Callable[[Any], Any]


def _items(node: Comprehension) -> Items:
    """What the variables are to be, one time after the other."""
    two = bool(node.var2)

    def items(values: Any) -> Any:
        if isinstance(values, list):
            return enumerate(values) if two else values
        if isinstance(values, dict):
            return values.items() if two else values
        raise EvaluationError(NO_OVERLOAD)

    return items


def _each(node: Comprehension, cost: int) -> Callable[[Frame, Any], None]:
    var, var2 = node.var, node.var2

    def one(f: Frame, item: Any) -> None:
        f.spend(cost)
        f.vars[var] = item

    def two(f: Frame, item: Any) -> None:
        f.spend(cost)
        f.vars[var], f.vars[var2] = item

    return two if var2 else one


Body = Callable[[Frame, Any], Any]


def _quantifier(decisive: bool) -> Callable[[Run | None, Run | None, Comprehension], Body]:
    def make(test: Run | None, body: Run | None, node: Comprehension) -> Body:
        assert test is not None
        each = _each(node, 4 if decisive else 3)

        def run(f: Frame, items: Any) -> Any:
            fault: EvaluationError | None = None
            for item in items:
                each(f, item)
                try:
                    if truth(test(f)) is decisive:
                        return decisive
                except CostExceeded:
                    raise
                except EvaluationError as e:
                    fault = fault or e
            if fault is not None:
                raise fault
            return not decisive

        return run

    return make


def _exists_one(test: Run | None, body: Run | None, node: Comprehension) -> Body:
    assert test is not None
    each = _each(node, 0)

    def run(f: Frame, items: Any) -> Any:
        count = 0
        for item in items:
            each(f, item)
            if truth(test(f)):
                f.cost += 2
                count += 1
        return count == 1

    return run


def _gather(test: Run | None, body: Run | None, node: Comprehension) -> Body:
    assert body is not None
    each = _each(node, 0)
    cost = 2 if isinstance(node.macro.body, Literal) else NEW_LIST + 2

    def run(f: Frame, items: Any) -> Any:
        out = []
        for item in items:
            each(f, item)
            if test is None or truth(test(f)):
                f.cost += cost
                out.append(body(f))
        return out

    return run


def _gather_map(test: Run | None, body: Run | None, node: Comprehension) -> Body:
    assert body is not None
    each = _each(node, 0)
    whole_entries = node.macro.name == "transformMapEntry"

    def run(f: Frame, items: Any) -> Any:
        out: dict[Any, Any] = {}
        for item in items:
            each(f, item)
            if test is not None and not truth(test(f)):
                continue
            f.cost += 3
            new = body(f) if whole_entries else {item[0]: body(f)}
            for key, value in new.items():
                if key in out:
                    raise EvaluationError(f"insert failed: key {library.show(key)} already exists")
                out[key] = value
        return out

    return run


_BODIES: dict[str, Callable[[Run | None, Run | None, Comprehension], Body]] = {
    "all": _quantifier(False),
    "exists": _quantifier(True),
    "exists_one": _exists_one,
    "map": _gather,
    "transformMap": _gather_map,
    "transformMapEntry": _gather_map,
}


def _bind(node: Comprehension) -> Run:
    init, result, name = program(node.init), program(node.result), node.accu

    def run(f: Frame) -> Any:
        missing = object()
        before = f.vars.get(name, missing)
        f.spend(NEW_LIST)
        f.vars[name] = init(f)
        try:
            return result(f)
        finally:
            if before is missing:
                del f.vars[name]
            else:
                f.vars[name] = before

    return run
