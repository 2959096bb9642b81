"""The types that a schema gives to the values it describes, and how large these can be.

A `Shape` is a schema as CEL sees it: its type, the most elements (characters, items, entries) a value can have, and
the fewest bytes it takes in JSON, from which follows how often it fits into a request. Values that JSON writes as
something else (a date as a string, a double as `1`) and lists with a list type are converted where they are reached.

Source: k8s.io/apiserver pkg/cel/common/schemas.go, pkg/cel/{types,limits}.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from berg.machinery.cel import types
from berg.machinery.cel.names import escape_name, is_escapable
from berg.machinery.cel.types import Type
from berg.machinery.status import Obj

LARGEST_REQUEST = 3 << 20
_SIMPLE = {"boolean": (types.BOOL, 4), "number": (types.DOUBLE, 1), "integer": (types.INT, 1)}
_STRINGS = {
    "byte": (types.BYTES, 2),
    "duration": (types.DURATION, 3),
    "date": (types.TIMESTAMP, 12),
    "date-time": (types.TIMESTAMP, 21),
}
_FIXED = {"duration": 32, "date": 12, "date-time": 32}
_META: Obj = {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}


@dataclass(slots=True)
class Shape:
    type: Type
    max_elements: int
    min_size: int
    fields: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    """by their escaped names: the real name and what is there"""
    key: Shape | None = None
    element: Shape | None = None
    convert: Callable[[Any], Any] | None = None


def shape_of(schema: Obj, *, root: bool = False, name: str = "self") -> Shape | None:
    """None where expressions cannot speak of it. `root`: a whole object, which always has its kind and name."""
    if schema.get("x-kubernetes-int-or-string"):
        longest = schema.get("maxLength")
        return _with_shape(types.Type("dyn"), max(longest, 0) * 4 if longest is not None else LARGEST_REQUEST - 2, 1)
    kind = schema.get("type")
    if root and kind == "object":
        schema = _with_meta(schema)
    match kind:
        case "array":
            return _list(schema, name)
        case "object":
            more = schema.get("additionalProperties")
            return _map(schema, more, name) if isinstance(more, dict) else _object(schema, name)
        case "string":
            return _string(schema)
    if kind in _SIMPLE:
        of, least = _SIMPLE[kind]
        return _with_shape(of, 0, least, _double if kind == "number" else None)
    return None


def _with_meta(schema: Obj) -> Obj:
    own = schema.get("properties") or {}
    if "kind" in own and "apiVersion" in own and _META["properties"].items() <= _names_of(own.get("metadata")).items():
        return schema
    text = {"type": "string"}
    return {**schema, "properties": {**own, "kind": text, "apiVersion": text, "metadata": _META}}


def _names_of(metadata: Obj | None) -> Obj:
    properties = (metadata or {}).get("properties") or {}
    return {name: {"type": inner.get("type")} for name, inner in properties.items()}


def _with_shape(of: Type, most: int, least: int, convert: Callable[[Any], Any] | None = None, **more: Any) -> Shape:
    shaped = Type(of.kind, of.name, of.params)
    shaped.fields = of.fields
    shape = Shape(shaped, most, least, convert=convert, **more)
    shaped.shape = shape
    return shape


def _inner(schema: Obj, name: str) -> Shape | None:
    return shape_of(schema, root=bool(schema.get("x-kubernetes-embedded-resource")), name=name)


def _list(schema: Obj, name: str) -> Shape | None:
    items = schema.get("items")
    element = _inner(items, f"{name}.@idx") if isinstance(items, dict) else None
    if element is None:
        return None
    most = schema.get("maxItems")
    most = max(most, 0) if most is not None else (LARGEST_REQUEST - 2) // (element.min_size + 1)
    return _with_shape(types.list_of(element.type), most, 2, _list_convert(schema, element.convert), element=element)


def _list_convert(schema: Obj, each: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    from berg.machinery.cel.values import MapList, SetList

    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    kinds: dict[str, Callable[[list[Any]], Any]] = {"set": SetList, "map": lambda values: MapList(values, keys)}
    kind = kinds.get(schema.get("x-kubernetes-list-type") or "")
    if kind is None and each is None:
        return None

    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        made = [each(v) for v in value] if each is not None else value
        return kind(made) if kind is not None else made

    return convert


def _map_convert(each: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if each is None:
        return None
    return lambda value: {k: each(v) for k, v in value.items()} if isinstance(value, dict) else value


def _map(schema: Obj, more: Obj, name: str) -> Shape | None:
    element = _inner(more, f"{name}.@elem")
    if element is None:
        return None
    most = schema.get("maxProperties")
    most = max(most, 0) if most is not None else (LARGEST_REQUEST - 2) // (element.min_size + 6)
    key = Shape(types.STRING, 0, 2)
    return _with_shape(
        types.map_of(types.STRING, element.type), most, 2, _map_convert(element.convert), key=key, element=element
    )


def _object(schema: Obj, name: str) -> Shape:
    required = set(schema.get("required") or ())
    least = 2
    fields: dict[str, tuple[str, Shape]] = {}
    for prop, inner in (schema.get("properties") or {}).items():
        shape = _inner(inner, f"{name}.{prop}") if isinstance(inner, dict) else None
        if shape is None:
            continue
        if is_escapable(prop):
            fields[escape_name(prop)] = prop, shape
        if prop in required and inner.get("default") is None:
            least += len(prop) + shape.min_size + 4
    of = types.struct(name, {escaped: shape.type for escaped, (_, shape) in fields.items()})
    return _with_shape(of, 0, least, fields=fields)


def _string(schema: Obj) -> Shape:
    form = schema.get("format") or ""
    of, least = _STRINGS.get(form, (types.STRING, 2))
    longest = schema.get("maxLength")
    if form in _FIXED:
        most = _FIXED[form]
    elif longest is not None:
        most = max(longest, 0) * (1 if form == "byte" else 4)
    elif schema.get("enum") and form != "byte":
        most = max((len(v.encode()) for v in schema["enum"] if isinstance(v, str)), default=0)
    else:
        most = LARGEST_REQUEST - 2
    return _with_shape(of, most, least, _CONVERTED.get(of.kind))


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _bytes(value: Any) -> Any:
    import base64

    return base64.b64decode(value) if isinstance(value, str) else value


def _duration(value: Any) -> Any:
    from berg.machinery.cel.library import times

    return times.duration(value) if isinstance(value, str) else value


def _timestamp(value: Any) -> Any:
    from berg.machinery.cel.library import times

    if not isinstance(value, str):
        return value
    return times.timestamp(f"{value}T00:00:00Z" if len(value) == 10 else value)


_CONVERTED = {"bytes": _bytes, "duration": _duration, "timestamp": _timestamp}
