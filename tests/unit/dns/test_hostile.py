"""Messages from strangers: read, or refused as broken; and what we answer, others can read."""

from __future__ import annotations

import contextlib

import dnslib
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.dns import wire

QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None)
LABELS = st.lists(st.text("abAB01-_", min_size=1, max_size=20), max_size=6).map(".".join)


@QUICK
@given(st.binary(max_size=80) | st.binary(max_size=60).map(b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01".__add__))
def test_broken_messages(data: bytes) -> None:
    failure = wire.failure(data, wire.FORMERR)
    assert failure is None or failure[:2] == data[:2]
    with contextlib.suppress(wire.WireError):
        query = wire.parse(data)
        assert len(query.name) < 256


@QUICK
@given(LABELS, st.integers(0, 65535), st.integers(0, 20), st.binary(max_size=3))
def test_questions_as_others_write_them(name: str, kind: int, cut: int, more: bytes) -> None:
    message = dnslib.DNSRecord(q=dnslib.DNSQuestion(name, kind)).pack()
    query = wire.parse(message)
    assert (query.name, query.type) == (name.lower(), kind)
    with contextlib.suppress(wire.WireError):
        wire.parse(message[: len(message) - cut] + more)
