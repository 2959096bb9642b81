"""A built-in object in the form in which upstream validates it: its internal structs, as Go writes them in JSON.

Messages that show a refused struct, or the difference that an update made, show that form. Its structs have no JSON
names, so they read `{"Key":"a","TimeAdded":null}`: each field by Go's name in the order of the declaration, nothing
left out. What metadata is made of (label selectors, owner references) keeps its JSON names and leaves out what is
empty.

Names and order follow from protobuf's numbers and Go's way with initials, except where `data/internal.json` tells
them, one struct a row: `Name`; `Name=json` where the served field has another name; `Name~zero` for what only the
internal struct has; `-json` for what only the served one has. Fields younger than that file have the place that their
number gives them. Nothing here is asked for unless something is refused.

Source: apimachinery pkg/util/diff; encoding/json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import orjson

from berg.machinery.bundle import read
from berg.machinery.status import Obj
from berg.machinery.typedef import META, Field, TypeDef, type_at, type_named

_INITIALS = frozenset(  # as Go spells them
    ("api", "cel", "cidr", "csi", "dns", "fc", "fs", "grpc", "http", "id", "ip", "iscsi")
    + ("nfs", "os", "pid", "rbd", "tcp", "tls", "uid", "uri", "url")
)
_FIRST_WORD = re.compile(r"[a-z]+")
_ZERO: Obj = {"string": "", "integer": 0, "number": 0, "boolean": False, "quantity": "0", "intorstring": 0}
_HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")


def go_name(name: str) -> str:
    """`podIP` → `PodIP`, `apiGroup` → `APIGroup`, `cidrs` → `CIDRs`."""
    first = _FIRST_WORD.match(name)
    word = first[0] if first else ""
    if word in _INITIALS:
        return word.upper() + name[len(word) :]
    if word.endswith("s") and word[:-1] in _INITIALS:
        return word[:-1].upper() + "s" + name[len(word) :]
    return name[:1].upper() + name[1:]


def derived(struct: TypeDef) -> list[tuple[str, Field]]:
    """What the declaration would be if it kept to the rules; the fields of an embedded struct where that stands."""
    embedded = {name: number for number, row in struct.inlines for name in type_at(row).fields}
    fields = sorted(struct.fields.values(), key=lambda f: f.number or embedded.get(f.name, 0))
    return [(go_name(f.name), f) for f in fields if f.number or f.name not in ("kind", "apiVersion")]


@cache
def _rows() -> dict[str, str]:
    return dict(read("internal.json"))


@cache
def declaration(struct: TypeDef) -> list[tuple[str, Field | None, Any]]:
    """(name, field, what it is when unset) in their order; no field for what only the internal struct has."""
    meta = struct.name.startswith(META)
    row = _rows().get(f"meta.{struct.short}" if meta else struct.name.removeprefix("io.k8s.api."))
    rest = {(f.name if meta else name): f for name, f in derived(struct)}
    if row is None:
        return [(name, f, unset(f)) for name, f in rest.items()]
    by_letters = {name.lower(): f for name, f in rest.items()}
    found: list[tuple[str, Field | None, Any]] = []
    for word in row.split():
        if word[0] == "-":
            by_letters.pop(word[1:].lower(), None)
            continue
        name, _, zero = word.partition("~")
        name, _, json_name = name.partition("=")
        field = by_letters.pop((json_name or name).lower(), None)
        found.append((name, field, unset(field) if field else orjson.loads(zero or "null")))
    for field in by_letters.values():  # younger than the declarations
        at = max((i + 1 for i, (_, f, _) in enumerate(found) if f and f.number < field.number), default=0)
        found.insert(at, (field.name if meta else go_name(field.name), field, unset(field)))
    return found


def unset(field: Field) -> Any:
    if field.pointer:
        return None
    return as_internal(field, {}) if field.type == "object" and field.struct else _ZERO.get(field.type)


def as_internal(field: Field, value: Any) -> Any:
    """`value` of this field, to be written as JSON."""
    if isinstance(value, list) and field.item is not None:
        return [as_internal(field.item, one) for one in value]
    if not isinstance(value, dict):
        return value
    if field.item is not None:
        return {key: as_internal(field.item, value[key]) for key in sorted(value)} if field.type == "map" else value
    return value if field.struct is None else struct_as_internal(field.struct, value)


def struct_as_internal(struct: TypeDef, value: Obj) -> Obj:
    if any(key[:1].isupper() for key in value):  # it has Go's names already
        return value
    if struct.name.startswith(META):
        return {n: as_internal(f, value[n]) for n, f, _ in declaration(struct) if f and n in value}
    if struct.short == "PodSpec":  # what concerns the host is part of the internal security context
        host = {key: value[key] for key in _HOST_FIELDS if key in value}
        value = {**value, "securityContext": {**(value.get("securityContext") or {}), **host}}
    return dict(_fields(struct, value))


def _fields(struct: TypeDef, value: Obj) -> Iterator[tuple[str, Any]]:
    for name, field, zero in declaration(struct):
        if field is None:
            key = name[:1].lower() + name[1:]
            yield name, value.get(key, zero)
        elif field.name == "metadata":  # embedded
            yield from as_internal(field, value.get("metadata") or {}).items()
        else:
            given = value.get(field.name)
            yield name, zero if given is None else as_internal(field, given)


def difference(name: str, old: Obj, new: Obj) -> str:
    """A unified diff, a field a line, of two values of the type that OpenAPI knows by this name."""
    from difflib import unified_diff

    struct = type_named(name)
    a, b = (_pretty(struct_as_internal(struct, value)) for value in (old, new))
    if len(a) + len(b) > MANY_LINES:
        return _replaced(a, b)
    lines = [*unified_diff(a, b, n=3, lineterm="")][2:]  # files have names, structs have none
    return "".join(f"{line}\n" for line in lines)


MANY_LINES = 10_000


def _replaced(a: list[str], b: list[str]) -> str:
    """One change from the first line that differs to the last. Differs from upstream: looking for the smallest
    difference between very long texts would keep everybody else waiting."""
    start = _alike(a, b)
    kept = min(_alike(a[::-1], b[::-1]), min(len(a), len(b)) - start)
    gone, new = a[start : len(a) - kept], b[start : len(b) - kept]
    head = f"@@ -{start + 1},{len(gone)} +{start + 1},{len(new)} @@\n"
    return head + "".join(f"{sign}{line}\n" for sign, lines in (("-", gone), ("+", new)) for line in lines)


def _alike(a: list[str], b: list[str]) -> int:
    """How many lines at the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _pretty(value: Obj) -> list[str]:
    from json import dumps

    text = dumps(value, indent=1, ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.split("\n")
