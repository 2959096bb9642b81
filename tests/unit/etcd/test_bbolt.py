"""bbolt databases: what is written is read; what is damaged is refused. (Real etcd reads them in tests/conformance.)"""

from __future__ import annotations

import os
import random

import pytest

from berg.etcd.bbolt import BadDatabase, Reader, write


def test_buckets_of_every_size() -> None:
    buckets = {
        b"empty": [],
        b"one": [(b"k", b"v")],
        b"large": [(b"k", os.urandom(1_000_000))],
        b"many": [(b"%08d" % n, b"v" * (n % 200)) for n in range(30_000)],
        b"long keys": [(b"%04d" % n + b"x" * 1500, b"") for n in range(300)],
    }
    data = write(buckets)
    assert len(data) % 4096 == 0
    reader = Reader(bytes(data))
    assert reader.buckets() == sorted(buckets)
    for name, pairs in buckets.items():
        assert list(reader.items(name)) == pairs
    assert list(reader.items(b"none")) == []


def test_one_damaged_meta_page_is_survived_and_two_are_not() -> None:
    data = write({b"b": [(b"k", b"v")]})
    data[20] ^= 0xFF
    assert list(Reader(bytes(data)).items(b"b")) == [(b"k", b"v")]
    data[4096 + 20] ^= 0xFF
    with pytest.raises(BadDatabase):
        Reader(bytes(data))


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"x" * 10_000])
def test_no_database(data: bytes) -> None:
    with pytest.raises(BadDatabase):
        Reader(data)


def test_damage_anywhere_never_does_anything_else_than_be_refused() -> None:
    good = write({b"b": [(b"%04d" % n, b"v" * 50) for n in range(500)]})
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(good)
        at = rng.randrange(2 * 4096, len(data))
        data[at : at + 4] = rng.randbytes(4)
        try:
            list(Reader(bytes(data)).items(b"b"))
        except BadDatabase:
            pass


def test_a_file_that_ends_too_soon() -> None:
    data = bytes(write({b"b": [(b"%04d" % n, b"v" * 50) for n in range(500)]}))
    with pytest.raises(BadDatabase):
        list(Reader(data[:20_000]).items(b"b"))
