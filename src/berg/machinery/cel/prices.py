"""What a call costs at worst, and how large what it makes can be: one entry for each function that is not simply 1.

Source: cel-go checker/cost.go, ext/{lists,sets}.go; k8s.io/apiserver pkg/cel/library/cost.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from berg.machinery.cel.sizes import (
    CHECK,
    INFINITE,
    NEW_LIST,
    NEW_STRUCT,
    REGEX,
    TRAVERSAL,
    Size,
    limited,
    times,
)
from berg.machinery.cel.syntax import Call, Literal, Node
from berg.machinery.cel.types import Overload


class Sizes(Protocol):
    """What is known of sizes when a call is priced: its arguments have been gone through."""

    def size(self, node: Node) -> Size: ...

    def of_element(self, node: Node) -> Size:
        """Of the strings in a list."""
        ...

    def unite(self, node: Call, a: Node, b: Node) -> None:
        """What is in the call's result is what is in either of these."""
        ...


Price = Callable[[Sizes, Call, Overload], tuple[int, Size | None] | None]


def _flat(cost: int) -> Price:
    return lambda e, c, o: (cost, None)


def _traversal(factor: float = 1.0, *, keeps: bool = False) -> Price:
    """Of the receiver or the first argument, once or more."""

    def price(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
        size = e.size(_subject(c))
        return times(size.most, factor * TRAVERSAL), (size if keeps else None)

    return price


def _subject(c: Call) -> Node:
    return c.target if c.target is not None else c.args[0]


def _argument(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    return times(e.size(c.args[0]).most, TRAVERSAL), None


def _elements(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    """Every element is looked at; strings are looked through."""
    size = e.size(_subject(c))
    of = _subject(c).type
    if not of.params:
        return times(size.most, TRAVERSAL), None
    each = 1
    if of.params[0].kind in ("string", "bytes"):
        each = limited(1 + times(e.of_element(_subject(c)).most, TRAVERSAL))
    return times(size.most, each), None


def _equality(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    a, b = c.args[0].type, c.args[1].type
    if a == b and a.kind in ("opaque", "struct"):
        if a.name == "kubernetes.NamedFormat":
            return 7, None
        if c.function == "_==_" and a.name.startswith(("net.", "kubernetes.")) and a.name != "kubernetes.URL":
            return 1, None
    return times(min(e.size(c.args[0]).most, e.size(c.args[1]).most), TRAVERSAL), None


def _comparison(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    return _equality(e, c, o) if o.args[0].kind in ("string", "bytes") else None


def _sum(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    kind = o.args[0].kind
    if kind not in ("string", "bytes", "list"):
        return None
    size = e.size(c.args[0]) + e.size(c.args[1])
    e.unite(c, c.args[0], c.args[1])
    return (1 if kind == "list" else times(size.most, TRAVERSAL)), size


def _in(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    return (e.size(c.args[1]).most, None) if o.args[1].kind == "list" else None


def _regex(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    if c.target is None:
        return None
    size = e.size(c.target)
    text = times(limited(size.most + 1), TRAVERSAL)
    result = Size(0, size.most) if c.function != "matches" else None
    return times(text, times(e.size(c.args[0]).most, REGEX)), result


def _contains(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    return times(times(e.size(c.target).most, TRAVERSAL), times(e.size(c.args[0]).most, TRAVERSAL)), None


def _converted(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None] | None:
    """Between strings and bytes, where a character is one to four bytes."""
    if (o.args[0].kind, o.result.kind) not in (("string", "bytes"), ("bytes", "string")):
        return None
    size = e.size(c.args[0])
    made = Size(size.least, limited(size.most * 4)) if o.result.kind == "bytes" else Size(size.least // 4, size.most)
    return times(size.most, TRAVERSAL), made


def _quote(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    size = e.size(c.args[0])
    return times(size.most, TRAVERSAL), Size(limited(size.least + 2), limited(size.most * 2 + 2))


def _replace(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
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


def _split(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    most = e.size(c.target).most
    made = most
    if len(c.args) > 1 and isinstance(c.args[1], Literal):
        made = int(c.args[1].value) % (1 << 64)
    return times(most, 2 * TRAVERSAL), Size(0, made)


def _joined(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    assert c.target is not None
    size = e.size(c.target)
    element = e.of_element(c.target)
    made = Size(times(size.least, element.least), times(size.most, element.most))
    if c.args:
        between = e.size(c.args[0])
        made += Size(times(between.least, max(size.least - 1, 0)), times(between.most, max(size.most - 1, 0)))
    return times(made.most, TRAVERSAL), made


def _selector(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    return selector_cost(e.size(c.args[0]).most), None


def selector_cost(length: int) -> int:
    return limited(NEW_LIST + times(length, TRAVERSAL) + times(times(length, 0.5), NEW_LIST + NEW_STRUCT))


def _within(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    """An address is at most 16 bytes, and compared twice."""
    cost = 4 if c.function == "containsIP" else 7
    if o.args[1].kind == "string":
        cost = limited(cost + times(e.size(c.args[0]).most, TRAVERSAL))
    return cost, None


def _address(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    return (1, None) if o.member else _argument(e, c, o)


def _format(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    return times(times(e.size(c.args[0]).most, TRAVERSAL), 128 * REGEX), None


def _sets(factor: int) -> Price:
    def price(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
        return limited(times(times(e.size(c.args[0]).most, e.size(c.args[1]).most), factor) + 1), None

    return price


def _allocated(size: Size, factor: float = 1.0) -> tuple[int, Size | None]:
    return limited(times(size.most, factor) + 1 + NEW_LIST), size


def _slice(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    start = _number(c.args[0], 0)
    end = _number(c.args[1], e.size(_subject(c)).most)
    return _allocated(Size((end - start) % (1 << 64), (end - start) % (1 << 64)))


def _number(node: Node, default: int) -> int:
    return max(node.value, 0) if isinstance(node, Literal) and type(node.value) is int else default


def _range(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    count = _number(c.args[0], INFINITE)
    return _allocated(Size(count, count))


def _reverse(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    return _allocated(e.size(_subject(c)))


def _flatten(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    return _allocated(e.size(_subject(c)), _number(c.args[0], INFINITE) if c.args else 1)


def _self_compared(e: Sizes, c: Call, o: Overload) -> tuple[int, Size | None]:
    by = c.args[0] if c.function == "@sortByAssociatedKeys" else _subject(c)
    size = e.size(by)
    kind = o.args[-1].params[0].kind if c.function != "distinct" else ""
    factor = 2.0 + (TRAVERSAL if kind in ("string", "bytes") else 0)
    return _allocated(Size(times(size.least, size.least), times(size.most, size.most)), factor)


PRICES: dict[str, Price] = {
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
