"""Kubernetes' protobuf: `k8s\\0`, then a runtime.Unknown (apiVersion, kind, the message's bytes).

Encoding gives byte for byte what upstream's generated code gives: fields in the order of their numbers, scalars
that are no pointers in Go also when they are zero, maps sorted. Decoding gives the JSON object that upstream
would write. Both follow the numbers in the schema bundle; only built-in kinds have any.

Source: k8s.io/apimachinery pkg/runtime/serializer/protobuf, the generated.proto files of k8s.io/api.
"""

from __future__ import annotations

from berg.machinery.codec import wire
from berg.machinery.codec.protobuf_decode import decode_message
from berg.machinery.codec.protobuf_encode import encode_message
from berg.machinery.codec.wire import Malformed, record
from berg.machinery.status import Obj
from berg.machinery.typedef import TypeDef, type_of

MAGIC = b"k8s\x00"


class NoProtobuf(ValueError):
    """The kind has no protobuf form: a custom resource, or unknown."""


def dumps(obj: Obj, type_: TypeDef | None = None) -> bytes:
    """Raises NoProtobuf."""
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    return envelope(api_version, kind, dumps_message(type_ or _type(api_version, kind), obj))


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = record(1, api_version.encode()) + record(2, kind.encode())
    return b"".join((MAGIC, record(1, meta), record(2, raw), b"\x1a\x00\x22\x00"))


def dumps_message(type_: TypeDef, obj: Obj) -> bytes:
    """The bare message."""
    return encode_message(type_, obj)


def loads(data: bytes) -> Obj:
    """Raises Malformed or NoProtobuf."""
    if not data.startswith(MAGIC):
        raise Malformed("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    api_version = kind = ""
    raw = b""
    for number, _, value in wire.records(data[4:]):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            for inner, _, text in wire.records(value):
                if inner == 1:
                    api_version = _text(text)
                elif inner == 2:
                    kind = _text(text)
        elif number == 2:
            raw = value
    return {"kind": kind, "apiVersion": api_version, **loads_message(_type(api_version, kind), raw)}


def loads_message(type_: TypeDef, data: bytes) -> Obj:
    return decode_message(type_, data)


def watch_event(kind: str, obj: bytes) -> bytes:
    """One frame of a protobuf watch: length, then a WatchEvent that carries `obj`, itself in an envelope."""
    event = record(1, kind.encode()) + record(2, record(1, obj))
    return len(event).to_bytes(4, "big") + event


def _type(api_version: str, kind: str) -> TypeDef:
    group, _, version = api_version.rpartition("/")
    found = type_of(group, version, kind)
    if found is None:
        raise NoProtobuf(f'no kind "{kind}" is registered for version "{api_version}"')
    return found


def _text(value: int | bytes) -> str:
    if isinstance(value, int):
        raise Malformed("proto: wrong wireType")
    return value.decode("utf-8", "replace")
