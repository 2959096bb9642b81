"""What an expression may cost at worst, before it is evaluated: rules that could cost too much are refused.

A cost is a number of units, a size a number of characters, elements or entries; both are known as the most they can
be (`INFINITE` where nothing says). Sizes come from literals, from what operators make of sizes, and from the schema of
the variables (`Shape`): a node's path from a variable leads to the shape it has there.

The figures are upstream's and part of its API: a rule that one server takes the other takes.
Only the upper bound is kept. Where cel-go's depends on a lower bound (`replace`, `join`), that is worked out here.

Source: cel-go checker/cost.go, ext/{lists,sets}.go; k8s.io/apiserver pkg/cel/library/cost.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from berg.machinery.cel import types
from berg.machinery.cel.prices import PRICES
from berg.machinery.cel.sizes import INFINITE, NEW_LIST, NEW_MAP, NEW_STRUCT, ONE, UNKNOWN, Size, limited, times
from berg.machinery.cel.syntax import Call, Comprehension, Ident, List, Literal, Map, Node, Select, Struct
from berg.machinery.cel.types import Overload, Type


@dataclass(slots=True)
class _Entries:
    """Sizes of what a list or map has in it."""

    key: Size
    value: Size
    of_map: bool


@dataclass(slots=True)
class _Local:
    shape: Any
    size: Size | None
    entries: _Entries | None


_NOWHERE = object()


def _element(shape: Any) -> Any:
    return shape.element


def worst(node: Node, shapes: dict[str, Any]) -> int:
    """`shapes`: of each variable, where its schema is known."""
    return _Estimate(next(iter(shapes.values()), None)).cost(node)


class _Estimate:
    def __init__(self, root: Any) -> None:
        self.root = root
        self.shapes: dict[int, Any] = {}
        """of nodes that a path leads to; None where it led to nothing"""
        self.sizes: dict[int, Size] = {}
        self.entries: dict[int, _Entries] = {}
        self.locals: dict[str, list[_Local]] = {}

    def cost(self, node: Node) -> int:
        match node:
            case Literal():
                return 0
            case Ident():
                return 1
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case List():
                return self._list(node)
            case Map():
                return self._map(node)
            case Struct():
                return NEW_STRUCT + sum(self.cost(e.value) for e in node.entries)
            case Comprehension():
                return self._comprehension(node)
        raise AssertionError(node)

    def _local(self, name: str) -> _Local | None:
        stack = self.locals.get(name)
        return stack[-1] if stack else None

    # ---- sizes

    def size(self, node: Node) -> Size:
        return self._size(node) or UNKNOWN

    def _size(self, node: Node) -> Size | None:
        known = self.sizes.get(id(node))
        if known is not None:
            return known
        if isinstance(node, Literal):
            length = len(node.value) if isinstance(node.value, str | bytes) else 1
            return Size(length, length)
        if isinstance(node, List):
            return Size(len(node.elements), len(node.elements))
        if isinstance(node, Map):
            return Size(len(node.entries), len(node.entries))
        shape = self.shape(node)
        if shape is not None and shape is not _NOWHERE:
            return Size(0, shape.max_elements)
        if _is_scalar(node.type):
            return ONE
        if isinstance(node, Ident):
            local = self._local(node.name)
            if local is not None:
                return local.size
        return None

    def shape(self, node: Node) -> Any:
        """None where the node's path leads out of the schema, `_NOWHERE` where it has no path.

        The first step of a path is taken to be the variable whose schema is known, whatever it is: a step from
        something without a path arrives there too. Upstream's sizes depend on it."""
        if isinstance(node, Ident):
            local = self._local(node.name)
            return local.shape if local is not None else self.root
        if isinstance(node, Select) and node.qualified:
            return self.root
        return self.shapes.get(id(node), _NOWHERE)

    def _step(self, node: Node, to: Callable[[Any], Any]) -> Any:
        shape = self.shape(node)
        if shape is _NOWHERE:
            return self.root
        return None if shape is None else to(shape)

    def _entries(self, node: Node) -> _Entries | None:
        known = self.entries.get(id(node))
        if known is None and isinstance(node, Ident):
            local = self._local(node.name)
            return local.entries if local is not None else None
        return known

    def of_element(self, node: Node) -> Size:
        """Of the strings in a list."""
        shape = self.shape(node)
        if shape is None or shape is _NOWHERE or shape.element is None:
            return UNKNOWN
        return Size(0, shape.element.max_elements)

    # ---- nodes

    def _select(self, node: Select) -> int:
        if node.qualified:
            return 1
        cost = self.cost(node.operand)
        if node.test:
            return cost
        self.shapes[id(node)] = self._step(node.operand, lambda shape: shape.fields.get(node.name, (None, None))[1])
        return cost + (node.operand.type.kind in ("map", "struct", "param"))

    def _list(self, node: List) -> int:
        cost = NEW_LIST
        size = Size(0 if not node.elements else INFINITE, 0)
        for inner in node.elements:
            cost = limited(cost + self.cost(inner))
            size |= self.size(inner)
        self.entries[id(node)] = _Entries(ONE, size, of_map=False)
        return cost

    def _map(self, node: Map) -> int:
        cost = NEW_MAP
        empty = 0 if not node.entries else INFINITE
        key, value = Size(empty, 0), Size(empty, 0)
        for entry in node.entries:
            cost = limited(cost + self.cost(entry.key) + self.cost(entry.value))
            key |= self.size(entry.key)
            value |= self.size(entry.value)
        self.entries[id(node)] = _Entries(key, value, of_map=True)
        return cost

    def _comprehension(self, node: Comprehension) -> int:
        if node.macro.name == "bind":
            return self._bind(node)
        cost = limited(self.cost(node.range) + self.cost(node.init))
        self._push(node.accu, _Local(_NOWHERE, self._size(node.init), self._entries(node.init)))
        self._push_iterated(node)
        each = limited(self.cost(node.condition) + self.cost(node.step))
        self.locals[node.var].pop()
        if node.var2:
            self.locals[node.var2].pop()
        cost = limited(cost + self.cost(node.result))
        self.locals[node.accu].pop()
        count = self.size(node.range)
        if isinstance(node.init, Literal):
            self.sizes[id(node)] = self.size(node.init)
        else:
            self.sizes[id(node)] = count
            entries = self._entries(node.step)
            if entries is not None:
                self.entries[id(node)] = entries
        return limited(cost + times(count.most, each))

    def _bind(self, node: Comprehension) -> int:
        cost = limited(self.cost(node.range) + self.cost(node.init))
        self._push(node.accu, _Local(self.shape(node.init), self._size(node.init), self._entries(node.init)))
        cost = limited(cost + self.cost(node.result))
        size, entries = self._size(node.result), self._entries(node.result)
        self.locals[node.accu].pop()
        if size is not None:
            self.sizes[id(node)] = size
        if entries is not None:
            self.entries[id(node)] = entries
        return cost

    def _push(self, name: str, local: _Local) -> None:
        self.locals.setdefault(name, []).append(local)

    def _push_iterated(self, node: Comprehension) -> None:
        entries = self._entries(node.range)
        of_map = entries.of_map if entries is not None else node.range.type.kind != "list"
        key_shape = self._step(node.range, lambda shape: shape.key if of_map else None)
        key = _Local(key_shape, entries.key if entries else None, None)
        value = _Local(self._step(node.range, _element), entries.value if entries else None, None)
        if node.var2:
            self._push(node.var, key)
            self._push(node.var2, value)
        else:
            self._push(node.var, key if of_map else value)

    # ---- calls

    def _call(self, node: Call) -> int:
        if node.function == "dyn":
            cost = self.cost(node.args[0]) + 1
            size = self._size(node.args[0])
            if size is not None:
                self.sizes[id(node)] = size
            return cost
        costs = [self.cost(a) for a in node.args]
        before = self.cost(node.target) if node.target is not None else 0
        if node.function == "_?._":
            return limited(sum(costs) + 1)
        match node.function:
            case "_&&_" | "_||_":
                own = limited(sum(costs))
            case "_?_:_":
                own = limited(costs[0] + max(costs[1:]))
                self.sizes[id(node)] = self.size(node.args[1]) | self.size(node.args[2])
                self.unite(node, node.args[1], node.args[2])
            case _:
                worst = 0
                result: Size | None = None
                for overload in node.overloads:
                    cost, made = self._overload(node, overload)
                    worst = max(worst, cost)
                    if made is not None:
                        result = made if result is None else result | made
                own = limited(worst + sum(costs))
                if node.function == "_[_]":
                    result = self._index(node)
                result = result or self._size(node)
                if result is not None:
                    self.sizes[id(node)] = result
        return limited(before + own)

    def unite(self, node: Call, a: Node, b: Node) -> None:
        left, right = self._entries(a), self._entries(b)
        if left is not None and right is not None:
            self.entries[id(node)] = _Entries(left.key | right.key, left.value | right.value, left.of_map)

    def _index(self, node: Call) -> Size | None:
        if any(o.args[0].kind in ("list", "map") for o in node.overloads):
            self.shapes[id(node)] = self._step(node.args[0], _element)
        entries = self._entries(node.args[0])
        return entries.value if entries is not None else None

    def _overload(self, node: Call, overload: Overload) -> tuple[int, Size | None]:
        price = PRICES.get(node.function)
        if price is not None:
            found = price(self, node, overload)
            if found is not None:
                return found
        return 1, None


def _is_scalar(t: Type) -> bool:
    return t.kind in types.SCALARS or (types.is_optional(t) and _is_scalar(t.params[0]))
