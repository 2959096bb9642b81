"""How a refused value reads in a message, where it is a struct: as Go prints the struct that upstream validates.

Kinds are validated in a form without JSON names, so their structs read `{"Key":"a","TimeAdded":null}`, each field
by Go's name, nothing left out. What metadata is made of (label selectors, owner references) keeps its JSON names
and leaves out what is empty. Both keep the order of the declaration, or nearly. Only asked for when something is
refused.

Source: apimachinery pkg/util/validation/field errors.go, ErrorBody; encoding/json.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from berg.machinery.status import FieldError, Obj
from berg.machinery.typedef import META, Field, TypeDef, type_at

_INDEX = re.compile(r"\[[^\]]*\]")
_INITIALS = frozenset(
    [
        "api",
        "cel",
        "cidr",
        "csi",
        "dns",
        "fc",
        "fs",
        "grpc",
        "http",
        "id",
        "ip",
        "iscsi",
        "nfs",
        "os",
        "pid",
        "rbd",
        "tcp",
        "tls",
        "uid",
        "uri",
        "url",
    ]  # as Go spells them
)
_VALUES = {key + s: f"{key.title()}Value{s}" for key in ("int", "bool", "string", "version") for s in ("", "s")}
"""fields of a DeviceAttribute, whose Go names say more"""
_FIRST_WORD = re.compile(r"[a-z]+")
_ZERO: Obj = {"string": "", "integer": 0, "number": 0, "boolean": False, "quantity": "0", "intorstring": 0}


def errors_as_go(type_: TypeDef, errors: list[FieldError]) -> list[FieldError]:
    return [dataclasses.replace(e, value=_value(type_, e)) if isinstance(e.value, (dict, list)) else e for e in errors]


def _value(type_: TypeDef, error: FieldError) -> Any:
    path = _INDEX.sub("", error.field)
    tried = (path, f"spec.{path}", path.replace("metadata.", "spec.", 1))  # some paths are told shorter than they are
    field = next((f for p in tried if (f := type_.at(*p.split(".")))), None)
    if field is None or not field.name:
        return error.value
    if error.field.endswith("]") and field.item is not None:
        field = field.item
    return _shown(field, error.value)


def _shown(field: Field, value: Any) -> Any:
    if isinstance(value, list) and field.item is not None:
        return [_shown(field.item, one) for one in value]
    if not isinstance(value, dict):
        return value
    if field.item is not None:
        return {key: _shown(field.item, value[key]) for key in sorted(value)} if field.type == "map" else value
    struct = field.struct
    if struct is None or any(key[:1].isupper() for key in value):  # free content; Go's names already
        return value
    if struct.name.startswith(META):
        return {f.name: _shown(f, value[f.name]) for f in _declared(struct) if f.name in value}
    found: Obj = {}
    valued = struct.name.endswith(".DeviceAttribute")
    for f in _declared(struct):
        given = value.get(f.name)
        if f.name == "metadata" and f.struct is not None and f.struct.name == META + "ObjectMeta":
            found |= _shown(f, given or {})  # embedded: its fields stand among ours
        else:
            found[_VALUES.get(f.name, go_name(f.name)) if valued else go_name(f.name)] = (
                _shown(f, given) if given is not None else _unset(f)
            )
    return found


def _declared(struct: TypeDef) -> list[Field]:
    """In the order of their protobuf numbers, which is nearly that of the declaration; those of an embedded struct
    where that stands."""
    embedded = {name: number for number, row in struct.inlines for name in type_at(row).fields}
    return sorted(struct.fields.values(), key=lambda f: f.number or embedded.get(f.name, 0))


def _unset(field: Field) -> Any:
    if field.pointer:
        return None
    return _shown(field, {}) if field.type == "object" and field.struct else _ZERO.get(field.type)


def go_name(name: str) -> str:
    """`podIP` → `PodIP`, `apiGroup` → `APIGroup`, `cidrs` → `CIDRs`."""
    if name.startswith("seLinux"):
        return "SEL" + name[3:]
    first = _FIRST_WORD.match(name)
    word = first[0] if first else ""
    if word in _INITIALS:
        return word.upper() + name[len(word) :]
    if word.endswith("s") and word[:-1] in _INITIALS:
        return word[:-1].upper() + "s" + name[len(word) :]
    return name[:1].upper() + name[1:]
