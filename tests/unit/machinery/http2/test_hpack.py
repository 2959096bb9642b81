"""HPACK against the examples of RFC 7541, Appendix C."""

from __future__ import annotations

import os

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.machinery.http2 import huffman as huffman_module
from berg.machinery.http2.hpack import Decoder, Field, encode
from berg.machinery.http2.huffman import HpackError, huffman

FIRST = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
SECOND = [*FIRST, ("cache-control", "no-cache")]
THIRD = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
]


@pytest.mark.parametrize(
    "blocks",
    [
        (  # C.3: plain strings
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (  # C.4: the same with Huffman codes
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ],
)
def test_requests_on_one_connection(blocks: tuple[str, ...]) -> None:
    decoder = Decoder()
    assert [decoder.decode(bytes.fromhex(b)) for b in blocks] == [FIRST, SECOND, THIRD]


def test_what_is_encoded_decodes_without_a_table() -> None:
    fields = [(":status", "200"), ("grpc-message", "x" * 300), ("empty", "")]
    block = encode(fields)
    decoder = Decoder()
    assert decoder.decode(block) == decoder.decode(block) == fields


def test_the_table_forgets_the_oldest() -> None:
    decoder = Decoder()
    for n in range(50):
        name, value = b"name%04d" % n, b"v" * 100
        decoder.decode(b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value)
    assert decoder._size <= 4096
    assert decoder.decode(b"\xbe") == [("name0049", "v" * 100)]


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\xff\x0f",  # an index beyond the table
        b"\x40\x05abc",  # a name that is cut off
        b"\x00\x81\x00\x00",  # Huffman padding that is none
        b"\x3f\xff\xff\x7f",  # a table larger than allowed
        b"\x82\x20",  # a change of size behind a field
    ],
)
def test_broken_blocks(block: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(block)


def test_random_bytes_never_do_anything_else() -> None:
    for _ in range(2000):
        try:
            Decoder().decode(os.urandom(30))
        except HpackError:
            pass


def test_huffman() -> None:
    assert huffman(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == "www.example.com"
    assert huffman(b"") == ""


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
FIELDS = st.lists(st.tuples(st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), TEXT), max_size=12)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([4096, 0, 100])), max_size=6))
def test_whatever_another_encoder_does(blocks: list[tuple[list[Field], bool, int]]) -> None:
    theirs, ours, back = hpack.Encoder(), Decoder(), hpack.Decoder()
    for fields, coded, size in blocks:
        theirs.header_table_size = size
        assert ours.decode(theirs.encode(fields, huffman=coded)) == fields
        assert [(str(k), str(v)) for k, v in back.decode(encode(fields))] == fields


def test_long_strings_are_decoded_and_not_kept() -> None:
    text = "the quick brown fox, 0123456789! " * 3000
    block = hpack.Encoder().encode([("x", text)])
    before = huffman_module._remembered.cache_info().currsize
    assert Decoder(1 << 20).decode(block) == [("x", text)]
    assert huffman_module._remembered.cache_info().currsize <= before + 1


def test_what_is_too_large_is_said_and_the_table_stays_in_step() -> None:
    theirs, ours = hpack.Encoder(), Decoder(1000)
    assert ours.decode(theirs.encode([("a", "x" * 400)] * 3))[:2] == [("a", "x" * 400)] * 2
    assert ours.too_large
    assert ours.decode(theirs.encode([("a", "x" * 400), ("b", "c")])) == [("a", "x" * 400), ("b", "c")]
    assert not ours.too_large
    with pytest.raises(HpackError):
        ours.decode(theirs.encode([("a", "x" * 400)] * 20))


@pytest.mark.parametrize("field", [("Upper", "x"), ("a b", "x"), ("a", "x\ry"), ("a", "\0")])
def test_fields_that_http_does_not_allow_have_names_that_nothing_has(field: Field) -> None:
    theirs, ours = hpack.Encoder(), Decoder()
    for block in (
        theirs.encode([field, ("b", "c")]),
        theirs.encode([field, ("b", "c")]),
    ):  # spelled out, and referred to
        bad, good = ours.decode(block)
        assert bad[0][0] == "\0" and len(bad[0]) == len(field[0]) and good == ("b", "c")
