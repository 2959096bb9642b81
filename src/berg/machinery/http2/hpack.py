"""HPACK, the header compression of HTTP/2: a whole decoder, and an encoder that never compresses.

The decoder keeps the dynamic table that its peer fills; it belongs to one connection, and a block that does not
decode makes the connection unusable. What this server sends is few and nearly constant, so it is encoded literally.

A field is looked at once, when it is spelled out, not each time it is referred to: the name of one that HTTP does not
allow then begins with a zero (and is as long as before, as the table counts it), and whoever reads the fields of the
request meets that.

Source: RFC 7541 (Appendix A: the static table).
"""

from __future__ import annotations

import re
from functools import lru_cache

from berg.machinery.http2.huffman import HpackError, huffman

TABLE_BYTES = 4096
MAX_LIST_BYTES = 64 * 1024
_LARGEST = TABLE_BYTES
"""of a field that stands in a table, with what is counted for it"""
_BOMB = 4
"""how many times the allowed size a block may come to before the peer is no client of good will"""

_SHORT = 128
"""names up to this length are remembered"""

Field = tuple[str, str]

_NAMES = """accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control
content-disposition content-encoding content-language content-length content-location content-range content-type
cookie date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after
server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate""".split()  # noqa: SIM905
_STATIC: list[Field] = [
    ("", ""),  # they are counted from 1
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    *((":status", code) for code in ("200", "204", "206", "304", "400", "404", "500")),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    *((name, "") for name in _NAMES),
]
_NAME = re.compile(r":?[a-z0-9!#$%&'*+\-.^_`|~]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _is_name(text: str) -> bool:
    return _short_is_name(text) if len(text) <= _SHORT else _NAME.fullmatch(text) is not None


@lru_cache(maxsize=512)
def _short_is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _malformed(name: str) -> str:
    return name and "\0" + name[1:]


class Decoder:
    def __init__(self, max_list_bytes: int = MAX_LIST_BYTES) -> None:
        self.too_large = False
        """of the last block: it said more than is allowed, and not all of it was kept"""
        self._max = max_list_bytes
        self._fields = _STATIC.copy()
        """the static table, and the dynamic one behind it: the newest first"""
        self._size = 0
        self._limit = TABLE_BYTES

    def decode(self, data: bytes) -> list[Field]:
        """Raises HpackError."""
        out: list[Field] = []
        fields = self._fields
        at, end, total = 0, len(data), 0
        """`total`: what the block comes to at most, until that is more than is allowed; then exactly"""
        exact = self.too_large = False
        try:
            while at < end:
                byte = data[at]
                if byte > 0x80 and byte != 0xFF:
                    field = fields[byte & 0x7F]
                    at += 1
                    if not exact:
                        out.append(field)
                        total += _LARGEST
                        if total > self._max:
                            exact = True
                            total = sum(map(_size, out))
                        continue
                elif byte & 0x80:
                    index, at = _integer(data, at, 7)
                    field = self._at(index)
                elif byte & 0x40:
                    field, at = self._literal(data, at, 6)
                    self._remember(field)
                elif byte & 0x20:
                    limit, at = _integer(data, at, 5)
                    if out or limit > TABLE_BYTES:
                        raise HpackError("a change of the table's size that is not allowed")
                    self._limit = limit
                    self._evict(0)
                    continue
                else:
                    field, at = self._literal(data, at, 4)
                total += _size(field)
                if total > self._max and not exact:
                    exact = True
                    total = sum(map(_size, out)) + _size(field)
                if total <= self._max:
                    out.append(field)
                elif total > _BOMB * self._max:
                    raise HpackError("far too many headers")
        except IndexError:
            raise HpackError("a header block that is cut off, or an index that is not in the table") from None
        self.too_large = total > self._max
        return out

    def _literal(self, data: bytes, at: int, bits: int) -> tuple[Field, int]:
        index, at = _integer(data, at, bits)
        if index:
            name = self._at(index)[0]
        else:
            name, at = _string(data, at)
            if not _is_name(name):
                name = _malformed(name)
        value, at = _string(data, at)
        if _CONTROL.search(value):
            name = _malformed(name)
        return (name, value), at

    def _at(self, index: int) -> Field:
        if not 0 < index < len(self._fields):
            raise HpackError("an index that is not in the table")
        return self._fields[index]

    def _remember(self, field: Field) -> None:
        size = _size(field)
        self._evict(size)
        if size <= self._limit:
            self._fields.insert(len(_STATIC), field)
            self._size += size

    def _evict(self, room: int) -> None:
        while self._size and self._size + room > self._limit:
            self._size -= _size(self._fields.pop())


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + 32


def _integer(data: bytes, at: int, bits: int) -> tuple[int, int]:
    mask = (1 << bits) - 1
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise HpackError("a number that is too large")


def _string(data: bytes, at: int) -> tuple[str, int]:
    coded = data[at] & 0x80
    size, at = _integer(data, at, 7)
    end = at + size
    if end > len(data):
        raise HpackError("a string that is cut off")
    raw = data[at:end]
    return (huffman(raw) if coded else raw.decode("latin-1")), end


def encode(fields: list[Field]) -> bytes:
    """Literal, without indexing: it depends on nothing that was sent before."""
    return b"".join(b"\0" + encode_string(name) + encode_string(value) for name, value in fields)


def encode_string(text: str) -> bytes:
    data = text.encode("latin-1", "replace")
    size = len(data)
    if size < 127:
        return _SIZES[size] + data
    head = bytearray(b"\x7f")
    size -= 127
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


_SIZES = [bytes((n,)) for n in range(127)]
