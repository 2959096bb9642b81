"""Netlink, packed by hand: messages, attributes, and a connection that asks the kernel.

A connection sends a batch of requests in one call and reads the answers; the first that the kernel refuses raises.
Written out because a general library costs more to import (100 ms, 20 MB) than all pods of a node cost to connect.

Source: netlink(7), include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Self

_HEADER = struct.Struct("=IHHII")

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE = 1, 4, 0x300, 0x100
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NESTED = 0x8000

Request = tuple[int, int, bytes]
"""Type, flags, body."""


def attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def open_socket(protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    opened.bind((0, 0))
    return opened


class Connection:
    """Owns the socket. For one thread at a time."""

    def __init__(self, opened: socket.socket) -> None:
        self._sequence = 0
        self._socket = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, *requests: Request) -> None:
        """Sends all, waits for all; raises the first refusal as OSError. Those after it were carried out too."""
        first = self._sequence + 1
        packet = b"".join(self._pack(kind, flags | NLM_F_ACK, body) for kind, flags, body in requests)
        self._socket.send(packet)
        pending = set(range(first, self._sequence + 1))
        failure: OSError | None = None
        while pending:
            for kind, sequence, body in self._receive():
                if kind != _NLMSG_ERROR or sequence not in pending:
                    continue
                pending.discard(sequence)
                code = struct.unpack_from("=i", body)[0]
                if code and failure is None:
                    failure = OSError(-code, os.strerror(-code))
        if failure is not None:
            raise failure

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        return list(self.answers(kind, body))

    def answers(self, kind: int, body: bytes) -> Iterator[bytes]:
        """One body for each object; to be taken to the end."""
        self._socket.send(self._pack(kind, NLM_F_DUMP, body))
        while True:
            for answer, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    code = struct.unpack_from("=i", data)[0]
                    raise OSError(-code, os.strerror(-code))
                yield data

    def _pack(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0) + body

    def _receive(self) -> Sequence[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 20)
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            messages.append((kind, sequence, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return messages
