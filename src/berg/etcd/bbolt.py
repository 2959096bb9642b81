"""bbolt, the file format of etcd's database, read and written whole.

A file is pages of one size. Pages 0 and 1 are meta pages; the valid one with the higher transaction number names
the root bucket. A bucket is a B+tree of leaf and branch pages; a bucket inside another is a leaf element with a
flag, whose value is the number of its own root page (or, for small ones, that page itself).

    page    id u64, flags u16, count u16, overflow u32, then elements
    branch  pos u32, ksize u32, pgid u64             pos counts from the element
    leaf    flags u32, pos u32, ksize u32, vsize u32
    meta    magic, version, page size, flags u32; root pgid, sequence; freelist; high water; txid; checksum u64

The writer lays a finished database down once, in order, with nothing free; it cannot change one.

Source: go.etcd.io/bbolt page.go, bucket.go, meta.go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MAGIC = 0xED0CDAED
VERSION = 2
PAGE_SIZE = 4096

_BRANCH, _LEAF, _META, _FREELIST = 0x01, 0x02, 0x04, 0x10
_BUCKET = 0x01
_PAGE = struct.Struct("<QHHI")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_LEAF_ELEMENT = struct.Struct("<IIII")
_META_BODY = struct.Struct("<IIIIQQQQQ")
_MAX_DEPTH = 64


class BadDatabase(ValueError):
    """The bytes are not a whole bbolt database."""


Pairs = Sequence[tuple[bytes, bytes]]


# -- reading


class Reader:
    """The buckets of a database that is held in memory (or mapped)."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        if len(self._data) < 2 * 512:
            raise BadDatabase("too short to be a bbolt database")
        metas = [meta for meta in map(self._meta, self._meta_offsets()) if meta is not None]
        if not metas:
            raise BadDatabase("not a bbolt database, or both of its meta pages are damaged")
        _, self._page_size, self._root = max(metas)

    def _meta_offsets(self) -> list[int]:
        """The second meta page is one page on; how large a page is stands in the first, if that is whole."""
        first = self._meta(0)
        return [0, first[1]] if first is not None else [1 << bits for bits in range(9, 17)]

    def _meta(self, at: int) -> tuple[int, int, int] | None:
        """(transaction, page size, root page) when the meta page at this offset is valid."""
        end = at + _PAGE.size + _META_BODY.size
        if len(self._data) < end + 8:
            return None
        body = self._data[at + _PAGE.size : end]
        magic, version, size, _, root, _, _, _, transaction = _META_BODY.unpack(body)
        (checksum,) = struct.unpack_from("<Q", self._data, end)
        if magic != MAGIC or version != VERSION or checksum != _fnv64a(bytes(body)):
            return None
        return transaction, size, root

    def buckets(self) -> list[bytes]:
        return [key for flags, key, _ in self._elements(self._page(self._root)) if flags & _BUCKET]

    def items(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The bucket's pairs in key order; nothing when there is no such bucket. Raises BadDatabase."""
        for flags, key, value in self._elements(self._page(self._root)):
            if flags & _BUCKET and key == bucket:
                for inner, k, v in self._elements(self._bucket_page(value)):
                    if not inner & _BUCKET:
                        yield k, bytes(v)

    def _bucket_page(self, value: memoryview) -> memoryview:
        if len(value) < 16:
            raise BadDatabase("a bucket without a header")
        (root,) = struct.unpack_from("<Q", value)
        return self._page(root) if root else value[16:]

    def _page(self, number: int) -> memoryview:
        at = number * self._page_size
        if at + _PAGE.size > len(self._data):
            raise BadDatabase(f"page {number} lies behind the end of the file")
        found, _, _, overflow = _PAGE.unpack_from(self._data, at)
        end = at + (overflow + 1) * self._page_size
        if found != number or end > len(self._data):
            raise BadDatabase(f"page {number} is damaged")
        return self._data[at:end]

    def _elements(self, page: memoryview, depth: int = 0) -> Iterator[tuple[int, bytes, memoryview]]:
        """(flags, key, value) of every leaf element under `page`, in order."""
        _, flags, count, _ = _PAGE.unpack_from(page)
        if depth > _MAX_DEPTH:
            raise BadDatabase("pages that lead in a circle")
        try:
            if flags & _LEAF:
                for i in range(count):
                    at = _PAGE.size + i * _LEAF_ELEMENT.size
                    kind, pos, key_size, value_size = _LEAF_ELEMENT.unpack_from(page, at)
                    start = at + pos
                    middle, end = start + key_size, start + key_size + value_size
                    if end > len(page):
                        raise BadDatabase("an element that is longer than its page")
                    yield kind, bytes(page[start:middle]), page[middle:end]
            elif flags & _BRANCH:
                for i in range(count):
                    _, _, number = _BRANCH_ELEMENT.unpack_from(page, _PAGE.size + i * _BRANCH_ELEMENT.size)
                    yield from self._elements(self._page(number), depth + 1)
            else:
                raise BadDatabase(f"a page of unknown kind {flags:#x} in a tree")
        except struct.error as e:
            raise BadDatabase("a page that is cut off") from e


# -- writing


def write(buckets: Mapping[bytes, Pairs]) -> bytearray:
    """A database with these buckets; the pairs of each in key order, no key twice."""
    writer = _Writer()
    roots = [(name, writer.tree([(0, key, value) for key, value in buckets[name]])) for name in sorted(buckets)]
    header = [(_BUCKET, name, struct.pack("<QQ", root, 0)) for name, root in roots]
    return writer.finish(writer.tree(header))


class _Writer:
    def __init__(self) -> None:
        self._out = bytearray(4 * PAGE_SIZE)  # two meta pages, the free list, and one spare that keeps ids simple
        self._next = 4

    def tree(self, elements: list[tuple[int, bytes, bytes]]) -> int:
        """Writes the pages of one bucket, leaves first; returns the root's number."""
        level = [self._leaf(run) for run in _runs(elements, _LEAF_ELEMENT.size, lambda e: len(e[1]) + len(e[2]))]
        while len(level) > 1:
            level = [self._branch(run) for run in _runs(level, _BRANCH_ELEMENT.size, lambda e: len(e[0]))]
        return level[0][1]

    def _leaf(self, run: list[tuple[int, bytes, bytes]]) -> tuple[bytes, int]:
        heads, bodies, pos = bytearray(), bytearray(), len(run) * _LEAF_ELEMENT.size
        for flags, key, value in run:
            heads += _LEAF_ELEMENT.pack(flags, pos - len(heads) + len(bodies), len(key), len(value))
            bodies += key
            bodies += value
        return (run[0][1] if run else b""), self._put(_LEAF, len(run), heads + bodies)

    def _branch(self, run: list[tuple[bytes, int]]) -> tuple[bytes, int]:
        heads, bodies, pos = bytearray(), bytearray(), len(run) * _BRANCH_ELEMENT.size
        for key, number in run:
            heads += _BRANCH_ELEMENT.pack(pos - len(heads) + len(bodies), len(key), number)
            bodies += key
        return run[0][0], self._put(_BRANCH, len(run), heads + bodies)

    def _put(self, flags: int, count: int, body: bytearray) -> int:
        number = self._next
        pages = -(-(_PAGE.size + len(body)) // PAGE_SIZE)
        self._out += _PAGE.pack(number, flags, count, pages - 1)
        self._out += body
        self._out += bytes(pages * PAGE_SIZE - _PAGE.size - len(body))
        self._next += pages
        return number

    def finish(self, root: int) -> bytearray:
        out = self._out
        free = struct.pack("<Q", 3)
        out[2 * PAGE_SIZE : 2 * PAGE_SIZE + _PAGE.size + 8] = _PAGE.pack(2, _FREELIST, 1, 0) + free
        for number in (0, 1):
            body = _META_BODY.pack(MAGIC, VERSION, PAGE_SIZE, 0, root, 0, 2, self._next, number)
            at = number * PAGE_SIZE
            page = _PAGE.pack(number, _META, 0, 0) + body + struct.pack("<Q", _fnv64a(body))
            out[at : at + len(page)] = page
        return out


def _runs(elements: list[Any], head: int, size: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Elements by the page: as many as fit, at least one (which then overflows); for none, one empty page."""
    room = PAGE_SIZE - _PAGE.size
    run: list[Any] = []
    used = 0
    for element in elements:
        needs = head + size(element)
        if run and used + needs > room:
            yield run
            run, used = [], 0
        run.append(element)
        used += needs
    if run or not elements:
        yield run


def _fnv64a(data: bytes) -> int:
    out = 0xCBF29CE484222325
    for byte in data:
        out = (out ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return out
