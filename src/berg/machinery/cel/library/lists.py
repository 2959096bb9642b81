"""Lists, sets, maps.

Source: cel-go ext/{lists,sets,comprehensions}.go; k8s.io/apiserver pkg/cel/library/lists.go.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from berg.machinery.cel.library import kind, on
from berg.machinery.cel.values import NONE, EvaluationError, Optional, contains, equal

for _kind in ("string", "bytes", "list", "map"):
    on("size", _kind)(len)


@on("isSorted", "list")
def is_sorted(values: list[Any]) -> bool:
    return all(a <= b for a, b in pairwise(values))


@on("sum", "list")
def total(values: list[Any]) -> Any:
    from berg.machinery.cel import library

    add = library.function("_+_")
    result = values[0]
    for value in values[1:]:
        result = add(result, value)
    return result


@on("min", "list")
def least(values: list[Any]) -> Any:
    if not values:
        raise EvaluationError("min called on empty list")
    return min(values)


@on("max", "list")
def most(values: list[Any]) -> Any:
    if not values:
        raise EvaluationError("max called on empty list")
    return max(values)


@on("indexOf", "list", "any")
def index_of(values: list[Any], wanted: Any) -> int:
    return next((i for i, v in enumerate(values) if equal(v, wanted)), -1)


@on("lastIndexOf", "list", "any")
def last_index_of(values: list[Any], wanted: Any) -> int:
    return next((i for i in range(len(values) - 1, -1, -1) if equal(values[i], wanted)), -1)


@on("first", "list")
def first(values: list[Any]) -> Optional:
    return Optional(values[0]) if values else NONE


@on("last", "list")
def last(values: list[Any]) -> Optional:
    return Optional(values[-1]) if values else NONE


@on("slice", "list", "int", "int")
def part(values: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise EvaluationError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise EvaluationError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if len(values) < end:
        raise EvaluationError(f"cannot slice({start}, {end}), list is length {len(values)}")
    return values[start:end]


@on("flatten", "list", "int")
def flat(values: list[Any], depth: int) -> list[Any]:
    if depth < 0:
        raise EvaluationError("level must be non-negative")
    out: list[Any] = []
    for value in values:
        if isinstance(value, list) and depth > 0:
            out += flat(value, depth - 1)
        else:
            out.append(value)
    return out


on("flatten", "list")(lambda values: flat(values, 1))


@on("lists.range", "int")
def count(end: int) -> list[int]:
    return list(range(end))


@on("reverse", "list")
def reverse(values: list[Any]) -> list[Any]:
    return values[::-1]


@on("distinct", "list")
def distinct(values: list[Any]) -> list[Any]:
    out: list[Any] = []
    for value in values:
        if not contains(out, value):
            out.append(value)
    return out


@on("sort", "list")
def in_order(values: list[Any]) -> list[Any]:
    return by_keys(values, values)


@on("@sortByAssociatedKeys", "list", "list")
def by_keys(values: list[Any], keys: list[Any]) -> list[Any]:
    if len({kind(k) for k in keys}) > 1:
        raise EvaluationError("list elements must have the same type")
    try:
        return [values[i] for i in sorted(range(len(values)), key=lambda i: keys[i])]
    except TypeError:
        raise EvaluationError("list elements must be comparable") from None


@on("sets.contains", "list", "list")
def has_all(values: list[Any], wanted: list[Any]) -> bool:
    return all(contains(values, v) for v in wanted)


@on("sets.equivalent", "list", "list")
def equivalent(a: list[Any], b: list[Any]) -> bool:
    return has_all(a, b) and has_all(b, a)


@on("sets.intersects", "list", "list")
def intersects(a: list[Any], b: list[Any]) -> bool:
    return any(contains(b, v) for v in a)
