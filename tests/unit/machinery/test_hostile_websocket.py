"""WebSocket frames from strangers: what comes is a message or the end; nothing is raised, kept or waited for."""

from __future__ import annotations

import asyncio
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from berg.machinery.streaming.websocket import _MAX_MESSAGE, WebSocket

MASK = b"\1\2\3\4"


def frame(first: int, payload: bytes, *, masked: bool = True, length: int = -1) -> bytes:
    """`first`: FIN, reserved bits and opcode; `length`: what is said instead of the truth."""
    size = len(payload) if length < 0 else length
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack(">BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    return head + (MASK + bytes(b ^ MASK[i % 4] for i, b in enumerate(payload)) if masked else payload)


FRAMES = (
    st.binary(max_size=16)
    | st.builds(frame, st.integers(0, 255), st.binary(max_size=140), masked=st.booleans())
    | st.builds(frame, st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A]), st.binary(max_size=20))
    | st.builds(frame, st.just(0x82), st.just(b"x"), length=st.integers(0, (1 << 63) - 1))
)


class _Stream:
    """What a WebSocket needs of a byte stream."""

    def __init__(self, data: bytes, pieces: int = 1) -> None:
        self.reader = asyncio.StreamReader()
        step = max(1, -(-len(data) // pieces))
        for at in range(0, len(data), step):
            self.reader.feed_data(data[at : at + step])
        self.reader.feed_eof()
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None: ...

    def close(self) -> None: ...


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(FRAMES, max_size=8).map(b"".join))
def test_frames(data: bytes) -> None:
    async def run() -> None:
        stream = _Stream(data)
        ws = WebSocket(stream)
        async with asyncio.timeout(30):
            while (message := await ws.receive()) is not None:
                assert isinstance(message, bytes | str)
        assert ws._size <= max(len(data), _MAX_MESSAGE)
        assert len(stream.written) <= 2 * len(data) + 200  # nobody is made to say much by saying little

    asyncio.run(run())


def test_a_message_that_never_ends_is_not_collected() -> None:
    async def run() -> int:
        part = frame(0x02, bytes(1 << 16), masked=False)[:-1] + b"\0"
        first = frame(0x02, b"")
        ws = WebSocket(_Stream(first + frame(0x00, bytes(1 << 20)) * 40))
        async with asyncio.timeout(60):
            while await ws.receive() is not None:
                pass
        assert part
        return sum(map(len, ws._parts))

    assert asyncio.run(run()) <= _MAX_MESSAGE
