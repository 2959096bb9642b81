"""What a call costs when it is made, worked out from its arguments before anything is done.

An evaluation may spend so much and no more, however long its input is and whatever the estimate said.

Source: cel-go interpreter/runtimecost.go; k8s.io/apiserver pkg/cel/library/cost.go, CallCost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from berg.machinery.cel.prices import selector_cost
from berg.machinery.cel.sizes import CHECK, NEW_LIST, REGEX, TRAVERSAL
from berg.machinery.cel.values import Named, size, walk

PER_CALL = 1_000_000
"""the most that one evaluation may cost"""
PER_REQUEST = 10_000_000
"""the most that all rules may cost together, or a policy"""
PER_CONDITIONS = 2_500_000
"""the most that the match conditions of a hook may cost"""

Price = Callable[[Sequence[Any]], int]


def _traversal(factor: float) -> Price:
    return lambda args: ceil(size(args[0]) * factor * TRAVERSAL)


def _in(args: Sequence[Any]) -> int:
    return size(args[1]) if isinstance(args[1], list) else 1


def _smaller(args: Sequence[Any]) -> int:
    if isinstance(args[0], Named):
        return 1
    return ceil(min(size(args[0]), size(args[1])) * TRAVERSAL)


def _sum(args: Sequence[Any]) -> int:
    if isinstance(args[0], str | bytes):
        return ceil((len(args[0]) + size(args[1])) * TRAVERSAL)
    return 1


def _regex(args: Sequence[Any]) -> int:
    return ceil((1 + size(args[0])) * TRAVERSAL) * ceil(size(args[1]) * REGEX)


def _contains(args: Sequence[Any]) -> int:
    return ceil(size(args[0]) * TRAVERSAL) * ceil(size(args[1]) * TRAVERSAL)


def _every(args: Sequence[Any]) -> int:
    return sum(ceil(len(v) * TRAVERSAL) if isinstance(v, str | bytes) else 1 for v in walk(args[0]))


def _join(args: Sequence[Any]) -> int:
    between = size(args[1]) * len(args[0]) if len(args) > 1 else 0
    return ceil((sum(map(size, args[0])) + between) * 2 * TRAVERSAL) if isinstance(args[0], list) else 1


def _replace(args: Sequence[Any]) -> int:
    """Also what is made: a short text can become a very long one."""
    made = size(args[0])
    if isinstance(args[0], str) and isinstance(args[1], str) and isinstance(args[2], str):
        made += args[0].count(args[1]) * len(args[2])
    return ceil(made * 2 * TRAVERSAL)


def _within(args: Sequence[Any]) -> int:
    cost = ceil(2 * size(args[0]) * TRAVERSAL)
    return cost + (ceil(len(args[1]) * TRAVERSAL) if isinstance(args[1], str) else 0)


def _inside(args: Sequence[Any]) -> int:
    return _within(args) + ceil(size(args[0]) * TRAVERSAL) + 1


def _sets(factor: int) -> Price:
    return lambda args: 1 + size(args[0]) * size(args[1]) * factor


def _range(args: Sequence[Any]) -> int:
    return (max(args[0], 0) if isinstance(args[0], int) else 0) + 1 + NEW_LIST


def _new_list(args: Sequence[Any]) -> int:
    return size(args[0]) + 1 + NEW_LIST


def _flatten(args: Sequence[Any]) -> int:
    return size(args[0]) * (args[1] if len(args) > 1 and isinstance(args[1], int) else 1) + 1 + NEW_LIST


def _self_compared(by: int) -> Price:
    def price(args: Sequence[Any]) -> int:
        values = args[by]
        count = size(values)
        factor = 2.0 + (TRAVERSAL if count and isinstance(values, list) and isinstance(values[0], str | bytes) else 0)
        return int(count * count * factor) + 1 + NEW_LIST

    return price


def _format(args: Sequence[Any]) -> int:
    return ceil((1 + size(args[1])) * TRAVERSAL) * 32


_once = _traversal(1)

PRICES: dict[str, Price] = {
    **dict.fromkeys(("startsWith", "endsWith", "strings.quote", "format"), _once),
    **dict.fromkeys(("url", "lowerAscii", "upperAscii", "substring", "trim", "jsonpatch.escapeKey", "cidr"), _once),
    **dict.fromkeys(("isIP", "isCIDR", "ip", "quantity", "isQuantity", "semver", "isSemver", "bytes"), _once),
    "@in": _in,
    **dict.fromkeys(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"), _smaller),
    "_+_": _sum,
    **dict.fromkeys(("matches", "find", "findAll"), _regex),
    "contains": _contains,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _every),
    "replace": _replace,
    "split": _traversal(2),
    "join": _join,
    "ip.isCanonical": _traversal(2),
    "containsIP": _within,
    "containsCIDR": _inside,
    "validate": _format,
    "check": lambda args: CHECK,
    **dict.fromkeys(("fieldSelector", "labelSelector"), lambda args: selector_cost(size(args[1]))),
    "sets.contains": _sets(1),
    "sets.intersects": _sets(1),
    "sets.equivalent": _sets(2),
    "lists.range": _range,
    **dict.fromkeys(("slice", "reverse"), _new_list),
    "flatten": _flatten,
    "distinct": _self_compared(0),
    "sort": _self_compared(0),
    "@sortByAssociatedKeys": _self_compared(1),
}
