"""What an expression may cost at worst, before it is evaluated: rules that could cost too much are refused.

A cost is a number of units, a size a number of characters, elements or entries; both are known as the most they can
be (`INFINITE` where nothing says). Sizes come from literals, from what operators make of sizes, and from the schema of
the variables (`Shape`): a node's path from a variable leads to the shape it has there.

The figures are upstream's and part of its API: a rule that one server takes the other takes.
Only the upper bound is kept. Where cel-go's depends on a lower bound (`replace`, `join`), that is worked out here.

Source: cel-go checker/cost.go, ext/{lists,sets}.go; k8s.io/apiserver pkg/cel/library/cost.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from berg.machinery.cel import types
from berg.machinery.cel.syntax import Call, Comprehension, Ident, List, Literal, Map, Node, Select, Struct
from berg.machinery.cel.types import Overload, Type

INFINITE = (1 << 64) - 1
TRAVERSAL, REGEX = 0.1, 0.25
NEW_LIST, NEW_MAP, NEW_STRUCT = 10, 30, 40
CHECK = 350_000
"""of asking the authorizer"""


def limited(value: float) -> int:
    return INFINITE if value >= INFINITE else math.ceil(value)


def times(a: float, b: float) -> int:
    return 0 if not a or not b else limited(a * b)


@dataclass(slots=True)
class Size:
    least: int
    most: int

    def __add__(self, other: Size) -> Size:
        return Size(limited(self.least + other.least), limited(self.most + other.most))

    def __or__(self, other: Size) -> Size:
        return Size(min(self.least, other.least), max(self.most, other.most))


UNKNOWN = Size(0, INFINITE)
_ONE = Size(1, 1)


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
            return _ONE
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
        self.entries[id(node)] = _Entries(_ONE, size, of_map=False)
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
                self._unite(node, node.args[1], node.args[2])
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

    def _unite(self, node: Call, a: Node, b: Node) -> None:
        left, right = self._entries(a), self._entries(b)
        if left is not None and right is not None:
            self.entries[id(node)] = _Entries(left.key | right.key, left.value | right.value, left.of_map)

    def _index(self, node: Call) -> Size | None:
        if any(o.args[0].kind in ("list", "map") for o in node.overloads):
            self.shapes[id(node)] = self._step(node.args[0], _element)
        entries = self._entries(node.args[0])
        return entries.value if entries is not None else None

    def _overload(self, node: Call, overload: Overload) -> tuple[int, Size | None]:
        price = _PRICES.get(node.function)
        if price is not None:
            found = price(self, node, overload)
            if found is not None:
                return found
        return 1, None


def _is_scalar(t: Type) -> bool:
    return t.kind in types.SCALARS or (types.is_optional(t) and _is_scalar(t.params[0]))


# ---- what functions cost

Price = Callable[[_Estimate, Call, Overload], tuple[int, Size | None] | None]


def _flat(cost: int) -> Price:
    return lambda e, c, o: (cost, None)


def _traversal(factor: float = 1.0, *, keeps: bool = False) -> Price:
    """Of the receiver or the first argument, once or more."""

    def price(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
        size = e.size(_subject(c))
        return times(size.most, factor * TRAVERSAL), (size if keeps else None)

    return price


def _subject(c: Call) -> Node:
    return c.target if c.target is not None else c.args[0]


def _argument(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    return times(e.size(c.args[0]).most, TRAVERSAL), None


def _elements(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    """Every element is looked at; strings are looked through."""
    size = e.size(_subject(c))
    of = _subject(c).type
    if not of.params:
        return times(size.most, TRAVERSAL), None
    each = 1
    if of.params[0].kind in ("string", "bytes"):
        each = limited(1 + times(e.of_element(_subject(c)).most, TRAVERSAL))
    return times(size.most, each), None


def _equality(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    a, b = c.args[0].type, c.args[1].type
    if a == b and a.kind in ("opaque", "struct"):
        if a.name == "kubernetes.NamedFormat":
            return 7, None
        if c.function == "_==_" and a.name.startswith(("net.", "kubernetes.")) and a.name != "kubernetes.URL":
            return 1, None
    return times(min(e.size(c.args[0]).most, e.size(c.args[1]).most), TRAVERSAL), None


def _comparison(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    return _equality(e, c, o) if o.args[0].kind in ("string", "bytes") else None


def _sum(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    kind = o.args[0].kind
    if kind not in ("string", "bytes", "list"):
        return None
    size = e.size(c.args[0]) + e.size(c.args[1])
    e._unite(c, c.args[0], c.args[1])
    return (1 if kind == "list" else times(size.most, TRAVERSAL)), size


def _in(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    return (e.size(c.args[1]).most, None) if o.args[1].kind == "list" else None


def _regex(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    if c.target is None:
        return None
    size = e.size(c.target)
    text = times(limited(size.most + 1), TRAVERSAL)
    result = Size(0, size.most) if c.function != "matches" else None
    return times(text, times(e.size(c.args[0]).most, REGEX)), result


def _contains(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    return times(times(e.size(c.target).most, TRAVERSAL), times(e.size(c.args[0]).most, TRAVERSAL)), None


def _converted(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    """Between strings and bytes, where a character is one to four bytes."""
    if (o.args[0].kind, o.result.kind) not in (("string", "bytes"), ("bytes", "string")):
        return None
    size = e.size(c.args[0])
    made = Size(size.least, limited(size.most * 4)) if o.result.kind == "bytes" else Size(size.least // 4, size.most)
    return times(size.most, TRAVERSAL), made


def _quote(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    size = e.size(c.args[0])
    return times(size.most, TRAVERSAL), Size(limited(size.least + 2), limited(size.most * 2 + 2))


def _replace(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    size, old, new = e.size(c.target), e.size(c.args[0]), e.size(c.args[1])
    if old.least == 0:
        most = limited(times(limited(size.most + 1), new.most) + size.most)
    elif new.most <= old.least:
        most = size.most
    else:
        most = times(limited(size.most / old.least), new.most)
    if old.most == 0:
        least = limited(times(limited(size.least + 1), new.least) + size.least)
    elif old.most <= new.least:
        least = size.least
    else:
        least = times(limited(size.least / old.most), new.least)
    return times(size.most, 2 * TRAVERSAL), Size(least, most)


def _split(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    most = e.size(c.target).most
    made = most
    if len(c.args) > 1 and isinstance(c.args[1], Literal):
        made = int(c.args[1].value) % (1 << 64)
    return times(most, 2 * TRAVERSAL), Size(0, made)


def _joined(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    size = e.size(c.target)
    element = e.of_element(c.target)
    made = Size(times(size.least, element.least), times(size.most, element.most))
    if c.args:
        between = e.size(c.args[0])
        made += Size(times(between.least, max(size.least - 1, 0)), times(between.most, max(size.most - 1, 0)))
    return times(made.most, TRAVERSAL), made


def _selector(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    return selector_cost(e.size(c.args[0]).most), None


def selector_cost(length: int) -> int:
    return limited(NEW_LIST + times(length, TRAVERSAL) + times(times(length, 0.5), NEW_LIST + NEW_STRUCT))


def _within(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    """An address is at most 16 bytes, and compared twice."""
    cost = 4 if c.function == "containsIP" else 7
    if o.args[1].kind == "string":
        cost = limited(cost + times(e.size(c.args[0]).most, TRAVERSAL))
    return cost, None


def _address(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    return (1, None) if o.member else _argument(e, c, o)


def _format(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    return times(times(e.size(c.args[0]).most, TRAVERSAL), 128 * REGEX), None


def _sets(factor: int) -> Price:
    def price(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
        return limited(times(times(e.size(c.args[0]).most, e.size(c.args[1]).most), factor) + 1), None

    return price


def _allocated(size: Size, factor: float = 1.0) -> tuple[int, Size | None]:
    return limited(times(size.most, factor) + 1 + NEW_LIST), size


def _slice(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    start = _number(c.args[0], 0)
    end = _number(c.args[1], e.size(_subject(c)).most)
    return _allocated(Size((end - start) % (1 << 64), (end - start) % (1 << 64)))


def _number(node: Node, default: int) -> int:
    return max(node.value, 0) if isinstance(node, Literal) and type(node.value) is int else default


def _range(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    count = _number(c.args[0], INFINITE)
    return _allocated(Size(count, count))


def _reverse(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    return _allocated(e.size(_subject(c)))


def _flatten(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    return _allocated(e.size(_subject(c)), _number(c.args[0], INFINITE) if c.args else 1)


def _self_compared(e: _Estimate, c: Call, o: Overload) -> tuple[int, Size | None]:
    by = c.args[0] if c.function == "@sortByAssociatedKeys" else _subject(c)
    size = e.size(by)
    kind = o.args[-1].params[0].kind if c.function != "distinct" else ""
    factor = 2.0 + (TRAVERSAL if kind in ("string", "bytes") else 0)
    return _allocated(Size(times(size.least, size.least), times(size.most, size.most)), factor)


_PRICES: dict[str, Price] = {
    "_==_": _equality,
    "_!=_": _equality,
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _comparison),
    "_+_": _sum,
    "@in": _in,
    **dict.fromkeys(("matches", "find", "findAll"), _regex),
    "contains": _contains,
    **dict.fromkeys(("startsWith", "endsWith"), _argument),
    **dict.fromkeys(("string", "bytes"), _converted),
    "strings.quote": _quote,
    **dict.fromkeys(
        ("lowerAscii", "upperAscii", "substring", "trim", "url", "jsonpatch.escapeKey"), _traversal(keeps=True)
    ),
    "format": _traversal(),
    "replace": _replace,
    "split": _split,
    "join": _joined,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _elements),
    **dict.fromkeys(("cidr", "isIP", "isCIDR", "quantity", "isQuantity", "semver", "isSemver"), _argument),
    "ip": _address,
    "ip.isCanonical": _traversal(2),
    **dict.fromkeys(("containsIP", "containsCIDR"), _within),
    "validate": _format,
    "check": _flat(CHECK),
    **dict.fromkeys(("fieldSelector", "labelSelector"), _selector),
    "sets.contains": _sets(1),
    "sets.intersects": _sets(1),
    "sets.equivalent": _sets(2),
    "slice": _slice,
    "lists.range": _range,
    "reverse": _reverse,
    "flatten": _flatten,
    **dict.fromkeys(("distinct", "sort", "@sortByAssociatedKeys"), _self_compared),
}
