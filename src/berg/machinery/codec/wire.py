"""The bytes of protobuf: varints, tags, lengths. No message knows another here; see `codec.protobuf`.

Source: protobuf.dev, encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SHORT = [bytes([i]) for i in range(128)]


class Malformed(ValueError):
    """Not the protobuf it claims to be; the messages are gogo-protobuf's."""


def varint(value: int) -> bytes:
    """Negative numbers as two's complement of 64 bits."""
    if 0 <= value < 128:
        return _SHORT[value]
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(number: int, data: bytes) -> bytes:
    """A field that has a length."""
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, unsigned; where it ends)."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise Malformed("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift >= 64:
            raise Malformed("proto: integer overflow")


def signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def double(value: float) -> bytes:
    return struct.pack("<d", value)


def undouble(data: bytes) -> float:
    return float(struct.unpack("<d", data)[0])


def records(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field number, wire type, value) of each field in a message; lengths are checked."""
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        if tag < 128:
            at += 1
        else:
            tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise Malformed(f"proto: illegal tag {number} (wire type {kind})")
        if kind == BYTES:
            length, at = read_varint(data, at)
            if at + length > end:
                raise Malformed("unexpected EOF")
            yield number, kind, data[at : at + length]
            at += length
        elif kind == VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
            if at + length > end:
                raise Malformed("unexpected EOF")
            yield number, kind, data[at : at + length]
            at += length
        else:
            raise Malformed(f"proto: illegal wireType {kind}")
