"""CBOR as Kubernetes uses it (KEP-4222): a self-described item; strings and keys as byte strings; what is bytes in
Go marked as "expected later as base64" (tag 22), which is how it looks in JSON.

Only what JSON can say is accepted. Source: k8s.io/apimachinery pkg/runtime/serializer/cbor; RFC 8949.
"""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from berg.machinery.status import Obj

MAGIC = b"\xd9\xd9\xf7"
"""tag 55799, self-described CBOR"""
_MAX_DEPTH = 256
_MAX_ITEMS = 1 << 20
_FLOATS = (b"\xf9", ">e"), (b"\xfa", ">f"), (b"\xfb", ">d")


class Malformed(ValueError):
    pass


def dumps(obj: Obj) -> bytes:
    """Deterministic: keys in the order of their bytes."""
    out = [MAGIC]
    _write(out, obj)
    return b"".join(out)


def loads(data: bytes) -> Any:
    """Raises Malformed."""
    if not data:
        raise Malformed("EOF")
    value, end = _Reader(data).item(len(MAGIC) if data.startswith(MAGIC) else 0, 0)
    if end != len(data):
        raise Malformed(f"cbor: {len(data) - end} bytes of extraneous data starting at index {end}")
    return value


def watch_event(type_: str, obj: Obj) -> bytes:
    """One item of `application/cbor-seq`; the object in it is self-described, too."""
    return b"%b\xa2\x44type%b\x46object%b" % (MAGIC, _head(2, len(type_)) + type_.encode(), dumps(obj))


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes([major << 5 | value])
    for size, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if value < 1 << 8 * size:
            return bytes([major << 5 | info]) + value.to_bytes(size, "big")
    raise Malformed(f"cbor: number {value} is out of range")


def _write(out: list[bytes], value: Any) -> None:
    if isinstance(value, str):
        data = value.encode()
        out += (_head(2, len(data)), data)
    elif value is None:
        out.append(b"\xf6")
    elif isinstance(value, bool):
        out.append(b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        out.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
    elif isinstance(value, float):
        out.append(_float(value))
    elif isinstance(value, list):
        out.append(_head(4, len(value)))
        for item in value:
            _write(out, item)
    elif isinstance(value, dict):
        out.append(_head(5, len(value)))
        encoded = []
        for key in value:
            data = key.encode()
            encoded.append((_head(2, len(data)) + data, key))
        for head, key in sorted(encoded):
            out.append(head)
            _write(out, value[key])
    else:
        raise Malformed(f"cbor: cannot encode {type(value).__name__}")


def _float(value: float) -> bytes:
    """In as few bytes as hold it exactly."""
    for head, form in _FLOATS:
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return head + packed
    raise Malformed(f"cbor: {value} is not a JSON number")


class _Reader:
    """Bounded in depth and number of items. Tags that mean nothing to JSON are looked through."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items = 0

    def _head(self, at: int) -> tuple[int, int, int, int]:
        """(major type, additional information, argument, where the head ends)."""
        data = self._data
        if at >= len(data):
            raise Malformed("unexpected EOF")
        major, info = data[at] >> 5, data[at] & 31
        at += 1
        if info < 24:
            return major, info, info, at
        if info > 27:
            if info == 31 and major in (2, 3, 4, 5, 7):
                return major, info, -1, at
            raise Malformed(f"cbor: invalid additional information {info} for type {major}")
        size = 1 << info - 24
        if at + size > len(data):
            raise Malformed("unexpected EOF")
        return major, info, int.from_bytes(data[at : at + size], "big"), at + size

    def item(self, at: int, depth: int) -> tuple[Any, int]:
        self._items += 1
        if depth > _MAX_DEPTH:
            raise Malformed(f"cbor: exceeded max nested level {_MAX_DEPTH}")
        if self._items > _MAX_ITEMS:
            raise Malformed("cbor: too many items")
        major, info, value, at = self._head(at)
        if major == 0:
            if value >= 1 << 63:
                raise Malformed(f"cbor: {value} overflows Go's int64")
            return value, at
        if major == 1:
            if value >= 1 << 63:
                raise Malformed(f"cbor: {-1 - value} overflows Go's int64")
            return -1 - value, at
        if major in (2, 3):
            return self._string(major, value, at)
        if major == 4:
            return self._list(value, at, depth)
        if major == 5:
            return self._map(value, at, depth)
        if major == 6:
            return self._tagged(value, at, depth)
        if value < 0:
            raise Malformed('cbor: unexpected "break" code')
        return self._simple(info, value, at), at

    def _bytes(self, major: int, length: int, at: int) -> tuple[bytes, int]:
        if length < 0:
            chunks = []
            while not self._ends(at):
                kind, _, size, at = self._head(at)
                if kind != major or size < 0:
                    raise Malformed("cbor: wrong element type in an indefinite-length string")
                chunk, at = self._bytes(major, size, at)
                chunks.append(chunk)
            return b"".join(chunks), at + 1
        end = at + length
        if end > len(self._data):
            raise Malformed("unexpected EOF")
        return self._data[at:end], end

    def _ends(self, at: int) -> bool:
        """Whether an item of no fixed length has its end here."""
        return self._data[at : at + 1] == b"\xff"

    def _string(self, major: int, length: int, at: int) -> tuple[str, int]:
        data, end = self._bytes(major, length, at)
        try:
            return data.decode(), end
        except UnicodeDecodeError:
            raise Malformed("cbor: invalid UTF-8 string") from None

    def _list(self, length: int, at: int, depth: int) -> tuple[list[Any], int]:
        if length > len(self._data) - at:
            raise Malformed("unexpected EOF")
        found: list[Any] = []
        while len(found) < length or (length < 0 and not self._ends(at)):
            value, at = self.item(at, depth + 1)
            found.append(value)
        return found, at + (length < 0)

    def _map(self, length: int, at: int, depth: int) -> tuple[dict[str, Any], int]:
        if length > len(self._data) - at:
            raise Malformed("unexpected EOF")
        found: dict[str, Any] = {}
        while len(found) < length or (length < 0 and not self._ends(at)):
            key, at = self.item(at, depth + 1)
            if not isinstance(key, str):
                raise Malformed("cbor: map keys must be strings")
            if key in found:
                raise Malformed(f'cbor: found duplicate map key "{key}" at map element index {len(found)}')
            found[key], at = self.item(at, depth + 1)
        return found, at + (length < 0)

    def _tagged(self, tag: int, at: int, depth: int) -> tuple[Any, int]:
        if tag in (21, 22, 23):  # bytes that JSON shows as base64url, base64, base16
            major, _, length, at = self._head(at)
            if major != 2:
                raise Malformed(f"cbor: tag {tag} must be followed by a byte string")
            data, end = self._bytes(2, length, at)
            encode = {21: base64.urlsafe_b64encode, 22: base64.b64encode, 23: base64.b16encode}[tag]
            return encode(data).decode(), end
        value, end = self.item(at, depth + 1)
        if tag == 0 and not isinstance(value, str):
            raise Malformed("cbor: tag 0 must be followed by a text string")
        if tag == 1:
            return _moment(value), end
        return value, end

    def _simple(self, info: int, value: int, at: int) -> Any:
        if info in (20, 21):
            return info == 21
        if info == 22:
            return None
        if info in (25, 26, 27):
            size = 1 << info - 24
            number = struct.unpack({2: ">e", 4: ">f", 8: ">d"}[size], self._data[at - size : at])[0]
            if math.isnan(number) or math.isinf(number):
                raise Malformed(f"cbor: {number} is not a JSON number")
            return number
        raise Malformed(f"cbor: simple value {value} is not allowed")


def _moment(value: Any) -> str:
    """Tag 1: seconds since the epoch, as JSON shows a time."""
    from datetime import UTC, datetime

    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed("cbor: tag 1 must be followed by a number")
    try:
        moment = datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        raise Malformed("cbor: time is out of range") from None
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{text}{fraction}Z"
