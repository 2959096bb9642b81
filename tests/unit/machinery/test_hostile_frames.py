"""SPDY frames from strangers: the connection ends, and nothing is left waiting or held."""

from __future__ import annotations

import asyncio
import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from berg.machinery.streaming.spdy import DICTIONARY, SpdyConnection


def control(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body


def compressed(block: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)


HEADERS = st.binary(max_size=30) | st.lists(st.binary(max_size=8), max_size=4).map(
    lambda parts: struct.pack(">I", len(parts) // 2) + b"".join(struct.pack(">I", len(p)) + p for p in parts)
)
FRAMES = (
    st.binary(max_size=24)
    | st.builds(control, st.integers(1, 11), st.integers(0, 255), st.binary(max_size=20))
    | st.builds(
        lambda stream, block: control(1, 0, struct.pack(">IIH", stream, 0, 0) + compressed(block)),
        st.integers(0, 9),
        HEADERS,
    )
    | st.builds(
        lambda stream, data: struct.pack(">II", stream, len(data)) + data, st.integers(0, 9), st.binary(max_size=20)
    )
)


class _Stream:
    """What a connection needs of a byte stream; what it writes goes nowhere."""

    def __init__(self, data: bytes) -> None:
        self.reader = asyncio.StreamReader()
        self.reader.feed_data(data)
        self.reader.feed_eof()

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(st.lists(FRAMES, max_size=6).map(b"".join))
def test_frames(data: bytes) -> None:
    async def served() -> None:
        connection = SpdyConnection(_Stream(data))  # type: ignore[arg-type]
        await asyncio.wait_for(connection.run(), 5)
        assert connection.closed

    asyncio.run(served())


def test_a_bomb_of_headers_ends_the_connection() -> None:
    block = struct.pack(">I", 1) + struct.pack(">I", 1 << 24) + bytes(1 << 24)
    frame = control(1, 0, struct.pack(">IIH", 1, 0, 0) + compressed(block))
    assert len(frame) < 1 << 20

    async def served() -> None:
        connection = SpdyConnection(_Stream(frame))  # type: ignore[arg-type]
        await asyncio.wait_for(connection.run(), 5)
        assert connection.closed

    asyncio.run(served())
