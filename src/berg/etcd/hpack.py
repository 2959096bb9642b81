"""HPACK, the header compression of HTTP/2: a whole decoder, and an encoder that never compresses.

The decoder keeps the dynamic table that its peer fills; it belongs to one connection, and a block that does not
decode makes the connection unusable. What this server sends is few and constant, so it is encoded once, literally.

Source: RFC 7541 (Appendix A: the static table; Appendix B: the Huffman code, which is canonical, so that the
lengths say all of it).
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

TABLE_BYTES = 4096
MAX_LIST_BYTES = 64 * 1024

Field = tuple[str, str]

_NAMES = """accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control
content-disposition content-encoding content-language content-length content-location content-range content-type
cookie date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after
server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate""".split()  # noqa: SIM905
_STATIC: list[Field] = [
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
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
"""of each byte's code"""


class HpackError(ValueError):
    pass


def _codes() -> dict[tuple[int, int], int]:
    """(length, code) → byte. Codes of one length follow each other in the order of the bytes."""
    out: dict[tuple[int, int], int] = {}
    code = length = 0
    for byte in sorted(range(256), key=lambda b: (_LENGTHS[b], b)):
        code <<= _LENGTHS[byte] - length
        length = _LENGTHS[byte]
        out[length, code] = byte
        code += 1
    return out


_CODES = _codes()


@lru_cache(maxsize=1024)
def huffman(data: bytes) -> str:
    """Raises HpackError when the padding is not that of a whole code."""
    out = bytearray()
    code = length = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | (byte >> shift & 1)
            length += 1
            found = _CODES.get((length, code))
            if found is not None:
                out.append(found)
                code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("a Huffman code that is cut off")
    return out.decode("latin-1")


class Decoder:
    def __init__(self) -> None:
        self._table: deque[Field] = deque()
        self._size = 0
        self._limit = TABLE_BYTES

    def decode(self, data: bytes) -> list[Field]:
        """Raises HpackError."""
        out: list[Field] = []
        at, end, total = 0, len(data), 0
        try:
            while at < end:
                byte = data[at]
                if byte & 0x80:
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
                total += len(field[0]) + len(field[1]) + 32
                if total > MAX_LIST_BYTES:
                    raise HpackError("too many headers")
                out.append(field)
        except IndexError:
            raise HpackError("a header block that is cut off") from None
        return out

    def _literal(self, data: bytes, at: int, bits: int) -> tuple[Field, int]:
        index, at = _integer(data, at, bits)
        if index:
            name = self._at(index)[0]
        else:
            name, at = _string(data, at)
        value, at = _string(data, at)
        return (name, value), at

    def _at(self, index: int) -> Field:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        index -= len(_STATIC) + 1
        if not 0 <= index < len(self._table):
            raise HpackError("an index that is not in the table")
        return self._table[index]

    def _remember(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + 32
        self._evict(size)
        if size <= self._limit:
            self._table.appendleft(field)
            self._size += size

    def _evict(self, room: int) -> None:
        while self._table and self._size + room > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + 32


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
    out = bytearray()
    for name, value in fields:
        out.append(0)
        for text in (name.encode("latin-1"), value.encode("latin-1")):
            _put_integer(out, len(text), 7)
            out += text
    return bytes(out)


def _put_integer(out: bytearray, value: int, bits: int) -> None:
    mask = (1 << bits) - 1
    if value < mask:
        out.append(value)
        return
    out.append(mask)
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
