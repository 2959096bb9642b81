"""What is known about a type: `TypeDef` (an object with named fields) and `Field` (one value: of a struct's field,
of a list's element, of a map's value).

One shape for all: built-in kinds are read from the schema bundle, each type when it is first asked for; CRDs'
structural schemas become the same (`berg.machinery.structural`). Decoding, pruning, defaulting, strategic
merge, server-side apply, protobuf and tables are written once, over these two classes.

`Field.type` is one of: string integer number boolean object array map quantity intorstring time microtime
duration bytes any fieldsv1. `object` has `struct`, `array` and `map` have `item`. Instances are shared: never
change one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from berg.machinery import bundle

_TYPE_OF_WIRE = {
    "int32": "integer",
    "int64": "integer",
    "double": "number",
    "bool": "boolean",
    "json": "any",
    "raw": "any",
    "schemaorarray": "any",
    "schemaorbool": "any",
    "schemaorstrings": "any",
}
_GO_OF_WIRE = {
    "string": "string",
    "int32": "int32",
    "int64": "int64",
    "double": "float64",
    "bool": "bool",
    "bytes": "[]uint8",
    "quantity": "resource.Quantity",
    "intorstring": "intstr.IntOrString",
    "time": "v1.Time",
    "microtime": "v1.MicroTime",
    "duration": "v1.Duration",
    "fieldsv1": "v1.FieldsV1",
    "raw": "runtime.RawExtension",
    "json": "v1.JSON",
}


class Field:
    __slots__ = (
        "_go",
        "_struct",
        "_struct_row",
        "default",
        "int_or_string",
        "item",
        "list_keys",
        "list_type",
        "map_type",
        "name",
        "nullable",
        "number",
        "omitempty",
        "omitzero",
        "open",
        "patch_key",
        "patch_strategy",
        "pointer",
        "required",
        "shape",
        "type",
        "wire",
        "wrapped",
    )

    def __init__(
        self,
        name: str,
        type: str,
        *,
        wire: str = "",
        item: Field | None = None,
        struct: TypeDef | None = None,
        struct_row: int = -1,
        number: int = 0,
        required: bool = False,
        pointer: bool = False,
        omitempty: bool = True,
        omitzero: bool = False,
        list_type: str = "",
        list_keys: tuple[str, ...] = (),
        map_type: str = "",
        patch_strategy: frozenset[str] = frozenset(),
        patch_key: str = "",
        default: Any = None,
        nullable: bool = False,
        open: bool = False,
        wrapped: bool = False,
        go: str = "",
    ) -> None:
        self.name = name
        self.type = type
        self.wire = wire or type
        """what protobuf and Go call it: `int32`, `double`, `raw`, … (see `berg.machinery.bundle`)"""
        self.item = item
        self._struct = struct
        self._struct_row = struct_row
        self.number = number
        self.required = required
        self.pointer = pointer
        self.omitempty = omitempty
        self.omitzero = omitzero
        self.list_type = list_type
        """`atomic` (also when empty), `set` or `map`"""
        self.list_keys = list_keys
        self.map_type = map_type
        """`atomic` or `granular` (also when empty), for maps and structs"""
        self.patch_strategy = patch_strategy
        """of strategic merge patch: any of merge, replace, retainKeys"""
        self.patch_key = patch_key
        self.default = default
        self.nullable = nullable
        self.open = open
        """x-kubernetes-preserve-unknown-fields"""
        self.wrapped = wrapped
        """a list that protobuf wraps in a message of its own"""
        self._go = go
        self.shape = -1
        """a note of `patch.shapes`"""

    def __repr__(self) -> str:
        return f"Field({self.name}: {self.go})"

    @property
    def struct(self) -> TypeDef | None:
        """The fields of an `object`; None for everything else (and for an object without declared fields)."""
        if self._struct is None and self._struct_row >= 0:
            self._struct = type_at(self._struct_row)
        return self._struct

    @property
    def atomic(self) -> bool:
        """Whether server-side apply owns the value as a whole."""
        if self.type == "array":
            return self.list_type not in ("set", "map")
        if self.type in ("map", "object"):
            if self.map_type:
                return self.map_type == "atomic"
            struct = self.struct
            return struct is not None and struct.map_type == "atomic"
        return True

    @property
    def go(self) -> str:
        """The type as Go prints it in messages: `int32`, `[]v1.Container`, `map[string]string`."""
        if self._go:
            return self._go
        if self.type == "array" and self.item:
            return f"[]{self.item.go}"
        if self.type == "map" and self.item:
            return f"map[string]{self.item.go}"
        struct = self.struct
        return struct.go if struct else _GO_OF_WIRE.get(self.wire, self.type)


class TypeDef:
    __slots__ = ("_fields", "_plan", "_row", "gvk", "inlines", "map_type", "name", "open")

    def __init__(
        self,
        name: str,
        fields: dict[str, Field] | None = None,
        *,
        gvk: tuple[str, str, str] | None = None,
        map_type: str = "",
        open: bool = False,
        inlines: tuple[tuple[int, int], ...] = (),
        row: list[Any] | None = None,
    ) -> None:
        self.name = name
        """OpenAPI's name, `io.k8s.api.apps.v1.Deployment`"""
        self.gvk = gvk
        self.map_type = map_type
        self.open = open
        """unknown fields are kept"""
        self.inlines = inlines
        """(protobuf number, row) of embedded messages whose fields stand among ours in JSON"""
        self._fields = fields
        self._row = row
        self._plan: Any = None

    def __repr__(self) -> str:
        return f"TypeDef({self.name})"

    @property
    def fields(self) -> dict[str, Field]:
        if self._fields is None:
            self._fields = {r[0]: _field_of_row(r) for r in self._row or ()}
        return self._fields

    @property
    def builtin(self) -> bool:
        """From the bundle, not from a CRD."""
        return self._row is not None

    @property
    def short(self) -> str:
        """Go's bare name of the struct, `DeploymentSpec`."""
        return self.name.rpartition(".")[2]

    @property
    def go(self) -> str:
        return ".".join(self.name.rsplit(".", 2)[-2:])

    def at(self, *path: str) -> Field | None:
        """The field at a path of names; elements of lists and maps need no step of their own for structs."""
        fields, found = self.fields, None
        for step in path:
            found = fields.get(step)
            if found is None:
                return None
            inner: Field | None = found
            while inner is not None and inner.item is not None:
                inner = inner.item
            struct = inner.struct if inner else None
            fields = struct.fields if struct else {}
        return found


def _field_of_row(row: list[Any]) -> Field:
    name, expression, number, flags, *rest = row
    more = rest[0] if rest else {}
    named = [{"g": more["ge"]}] if "ge" in more else []
    item: Field | None = None
    wire, type_, struct_row, wrapped = expression, "", -1, False
    if expression[0] == "~":
        wrapped, expression = True, expression[1:]
    if expression[0] == "#":
        wire = type_ = "object"
        struct_row = int(expression[1:])
    elif expression[:2] == "[]":
        wire = type_ = "array"
        item = _field_of_row(["", expression[2:], 0, 0, *named])
    elif expression[:2] == "{}":
        wire = type_ = "map"
        item = _field_of_row(["", expression[2:], 0, 0, *named])
    else:
        type_ = _TYPE_OF_WIRE.get(expression, expression)
    default = more.get("d")
    return Field(
        name,
        type_,
        wire=wire,
        item=item,
        struct_row=struct_row,
        number=number,
        required=bool(flags & 1),
        pointer=bool(flags & 2),
        omitempty=bool(flags & 4),
        omitzero=bool(flags & 8),
        list_type=more.get("lt", ""),
        list_keys=tuple(more.get("lk", ())),
        map_type=more.get("mt", ""),
        patch_strategy=frozenset(more["ps"].split(",")) if "ps" in more else frozenset(),
        patch_key=more.get("pk", ""),
        default=default,
        wrapped=wrapped,
        go=more.get("g", ""),
    )


@cache
def type_at(row: int) -> TypeDef:
    """The built-in type in this row of the bundle."""
    name, facts = bundle.type_row(row)
    return TypeDef(
        name,
        gvk=tuple(facts["k"]) if "k" in facts else None,
        map_type=facts.get("mt", ""),
        inlines=tuple((number, inner) for number, inner in facts.get("in", ())),
        row=facts["f"],
    )


def type_named(name: str) -> TypeDef:
    """The built-in type with this OpenAPI name; KeyError when there is none."""
    row = bundle.type_number(name)
    if row is None:
        raise KeyError(name)
    return type_at(row)


META = "io.k8s.apimachinery.pkg.apis.meta.v1."


@cache
def type_of(group: str, version: str, kind: str) -> TypeDef | None:
    """The built-in type of a kind, also of versions that are served no more; None when there is none. Options and
    Status exist in every group."""
    row = bundle.kind_index().get((group, version, kind))
    if row is None and (
        group == "meta.k8s.io" or kind.endswith("Options") or kind in ("Status", "WatchEvent", "Scale")
    ):
        row = bundle.type_number(META + kind)
    if row is None:
        home = _HOMES.get(group) or f"api.{group.partition('.')[0] or 'core'}"
        row = bundle.type_number(f"io.k8s.{home}.{version}.{kind}")
    return None if row is None else type_at(row)


_HOMES = {
    "apiextensions.k8s.io": "apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "kube-aggregator.pkg.apis.apiregistration",
    "internal.apiserver.k8s.io": "api.apiserverinternal",
    "metrics.k8s.io": "metrics.pkg.apis.metrics",
    "custom.metrics.k8s.io": "metrics.pkg.apis.custom_metrics",
    "external.metrics.k8s.io": "metrics.pkg.apis.external_metrics",
}
"""Where a group's types live, when that is not `k8s.io/api/<first label>`."""


def object_meta() -> TypeDef:
    return type_named(META + "ObjectMeta")
