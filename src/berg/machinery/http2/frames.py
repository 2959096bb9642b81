"""The numbers of HTTP/2, and how a peer breaks its rules. Source: RFC 9113."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

S_TABLE, S_PUSH, S_STREAMS, S_WINDOW, S_FRAME, S_LIST, S_NO_PRIORITIES = 1, 2, 3, 4, 5, 6, 9

SMALLEST_MAX_FRAME, LARGEST_MAX_FRAME = 1 << 14, (1 << 24) - 1
DEFAULT_WINDOW = 65535
LARGEST_WINDOW = 0x7FFFFFFF

HEAD = struct.Struct(">IBI")
"""length and type in one, flags, stream"""
NUMBER = struct.Struct(">I")
SETTING = struct.Struct(">HI")


@dataclass(frozen=True, slots=True)
class Limits:
    """What this side lets its peer do, told it in the first SETTINGS."""

    streams: int = 10_000
    frame_bytes: int = SMALLEST_MAX_FRAME
    stream_window: int = 4 << 20
    connection_window: int = 16 << 20
    header_list_bytes: int = 64 << 10


class Broken(Exception):
    """The peer broke the connection's rules: GOAWAY with `code`, and the end."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamBroken(Exception):
    """It broke those of one stream: that one is reset, the others do not notice."""

    def __init__(self, number: int, code: int) -> None:
        super().__init__(number, code)
        self.number = number
        self.code = code


def unpadded(payload: bytes, flags: int) -> bytes:
    """Raises Broken."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Broken(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
