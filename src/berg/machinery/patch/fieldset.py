"""Sets of field paths, in the shape of `FieldsV1` itself: a dict from path element to the set below it.

    {"f:spec": {"f:replicas": {}, "f:selector": {".": {}, "f:matchLabels": {…}}}}

An element with nothing below is a member (`spec.replicas`); one with "." and more below is a member too
(`spec.selector`); one without "." is only on the way (`spec`). Elements: `f:NAME`, `k:{"key":value}` (list
element by keys, sorted), `v:VALUE` (element of a set). `{}` at the top is the empty set.

Operations never change their arguments and give back an argument itself when nothing differs, so `is` tells
whether something did.

Source: sigs.k8s.io/structured-merge-diff fieldpath.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import is_
from typing import Any

import orjson

FieldSet = dict[str, Any]
Path = tuple[str, ...]

EMPTY: FieldSet = {}


def is_set(value: Any) -> bool:
    """Whether a client's JSON is one: nothing but path elements, and sets below them."""
    return isinstance(value, dict) and all(
        (element == "." or element[1:2] == ":") and is_set(below) for element, below in value.items()
    )


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    if not b or a is b:
        return a
    if not a:
        return b
    merged = None
    for element, below in b.items():
        mine = a.get(element)
        if mine is None:
            new = below
        elif element == "." or (not mine and not below):
            continue
        elif not mine or not below:  # a bare member and something below it
            whole = mine or below
            new = whole if "." in whole else {".": {}, **whole}
        else:
            new = union(mine, below)
        if new is not mine:
            if merged is None:
                merged = dict(a)
            merged[element] = new
    return a if merged is None else merged


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Members of `a` that are not members of `b`."""
    return _subtract(a, b, False)


def recursive_difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Members of `a` that neither are members of `b` nor lie below one."""
    return _subtract(a, b, True)


def _subtract(a: FieldSet, b: FieldSet, recursive: bool) -> FieldSet:
    left = None
    for element, theirs in b.items():
        if element == ".":
            continue
        mine = a.get(element)
        if mine is None:
            continue
        theirs_member = not theirs or "." in theirs
        if not mine:
            new: FieldSet | None = None if theirs_member else mine
        elif theirs_member and recursive:
            new = None
        else:
            new = _subtract(mine, theirs, recursive)
            if theirs_member and "." in new:
                new = {k: v for k, v in new.items() if k != "."}
                new = new or None
            elif "." in new and len(new) == 1:
                new = {}  # only the member itself is left
            elif not new:
                new = None
        if new is not mine:
            if left is None:
                left = dict(a)
            if new is None:
                del left[element]
            else:
                left[element] = new
    return a if left is None else left


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    """What is a member of both."""
    both: FieldSet = {}
    for element, mine in a.items():
        theirs = b.get(element)
        if theirs is None or element == ".":
            continue
        member = (not mine or "." in mine) and (not theirs or "." in theirs)
        below = intersection(mine, theirs) if mine and theirs else EMPTY
        if below:
            both[element] = {".": {}, **below} if member else below
        elif member:
            both[element] = {}
    return both


def has(a: FieldSet, path: Path) -> bool:
    for element in path:
        found = a.get(element)
        if found is None:
            return False
        a = found
    return not a or "." in a


def insert(a: FieldSet, path: Path) -> None:
    """In place; only on a set that is not shared."""
    for element in path[:-1]:
        below = a.get(element)
        if below is None:
            below = a[element] = {}
        elif not below:
            below["."] = {}  # was a bare member
        a = below
    last = a.get(path[-1])
    if last is None:
        a[path[-1]] = {}
    elif last:
        last["."] = {}


def graft(a: FieldSet, path: Path, below: FieldSet) -> None:
    """Inserts the path and everything in `below` under it, in place. Nothing may be there yet."""
    for element in path[:-1]:
        inner = a.get(element)
        if inner is None:
            inner = a[element] = {}
        elif not inner:
            inner["."] = {}
        a = inner
    a[path[-1]] = below


def paths(a: FieldSet, prefix: Path = ()) -> Iterator[Path]:
    """Every member: those of a level first, then what lies below, in order."""
    elements = sorted(e for e in a if e != ".")
    for element in elements:
        if not a[element] or "." in a[element]:
            yield (*prefix, element)
    for element in elements:
        if a[element]:
            yield from paths(a[element], (*prefix, element))


def ordered(a: FieldSet) -> FieldSet:
    """The same set in the order in which it is written: the member itself, then what lies below by name."""
    elements = sorted(a)
    at = bisect_left(elements, "i:")
    if at < len(elements) and elements[at].startswith("i:"):  # by number, and behind all others
        elements.sort(key=_rank)
    below = {e: ordered(a[e]) if a[e] else a[e] for e in elements}
    if elements == list(a) and all(map(is_, below.values(), a.values())):
        return a
    return below


def _rank(element: str) -> tuple[bool, int, str]:
    index = element[2:]
    return (element[0] == "i", int(index) if element[0] == "i" and index.isdigit() else 0, element)


def of_paths(*members: Path) -> FieldSet:
    found: FieldSet = {}
    for path in members:
        insert(found, path)
    return found


def fields(*names: str) -> Path:
    """The path of nested fields: `fields("metadata", "name")`."""
    return tuple(f"f:{n}" for n in names)


def show(path: Path) -> str:
    """As upstream prints a path: `.spec.containers[name="a"].image`."""
    return "".join(map(_show_element, path))


def _show_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = orjson.loads(text)
        return f"[{','.join(f'{k}={_show_value(v)}' for k, v in keys.items())}]"
    if kind == "v:":
        return f"[={_show_value(orjson.loads(text))}]"
    return f"[{text}]"


def _show_value(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return orjson.dumps(value).decode()


def valid(a: Any) -> bool:
    """Whether this is a set that a client may send."""
    if not isinstance(a, dict):
        return False
    for element, below in a.items():
        if element == ".":
            if below != {}:
                return False
            continue
        if element[1:2] != ":" or element[0] not in "fkvi" or not valid(below):
            return False
        if element[0] in "kv":
            try:
                parsed = orjson.loads(element[2:])
            except orjson.JSONDecodeError:
                return False
            if element[0] == "k" and not isinstance(parsed, dict):
                return False
    return True
