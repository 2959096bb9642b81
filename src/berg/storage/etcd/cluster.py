"""Connections to the members of an etcd cluster: one call goes to the member that answered last, and moves on to
the next when that one does not answer.

Reads are tried on every member. A write is sent again only when it certainly never left this machine: a member
that went away in the middle may have done it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from berg.storage.etcd.errors import from_wire
from berg.storage.interface import StoreError, Unavailable

TIMEOUT_S = 10.0
ATTEMPT_S = 5.0

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
]
HAS_LEADER = (("hasleader", "true"),)
"""a member that has lost its leader refuses, rather than answer from the past or fall silent"""

_NEVER_SENT = ("failed to connect", "Connection refused", "connections to all backends failing", "DNS resolution")


class Cluster:
    def __init__(self, endpoints: list[str], *, ca_file: str = "", cert_file: str = "", key_file: str = "") -> None:
        if not endpoints:
            raise ValueError("no etcd endpoints")
        self.endpoints = endpoints
        self._files = (ca_file, cert_file, key_file)
        self._channels: list[grpc.aio.Channel] = []
        self._current = 0
        self.fault: str | None = None
        """why the last call found no member that could answer; None when it did"""
        self.answered_at = 0.0

    def open(self) -> None:
        """Needs a running loop. Connecting happens with the first call."""
        self._channels = [self._channel(endpoint) for endpoint in self.endpoints]

    async def close(self) -> None:
        channels, self._channels = self._channels, []
        await asyncio.gather(*(channel.close() for channel in channels))

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        url = urlsplit(endpoint)
        host = url.hostname or ""
        target = f"{f'[{host}]' if ':' in host else host}:{url.port or 2379}"
        if url.scheme == "unix":
            return grpc.aio.insecure_channel(f"unix:{url.path}", options=_OPTIONS)
        if url.scheme == "http":
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        if url.scheme != "https":
            raise ValueError(f"{endpoint}: an etcd endpoint is http://, https:// or unix://")
        ca, cert, key = (Path(f).read_bytes() if f else None for f in self._files)
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), options=_OPTIONS)

    async def call(
        self, method: str, request: Any, answer: type[Any], *, safe: bool, timeout_s: float | None = None
    ) -> Any:
        """`safe`: asking twice does no harm. Raises StoreError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout_s or TIMEOUT_S)
        failed: StoreError = Unavailable("etcdserver: no endpoints")
        tried = 0
        while (left_s := deadline - loop.time()) > 0 and self._channels:
            invoke: Any = self._channels[self._current].unary_unary(
                method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
            )
            try:
                found = await invoke(request, timeout=min(left_s, ATTEMPT_S) if safe else left_s, metadata=HAS_LEADER)
                self.fault, self.answered_at = None, loop.time()
                return found
            except grpc.aio.AioRpcError as e:
                failed = store_error(e)
                if not isinstance(failed, Unavailable):
                    self.fault, self.answered_at = None, loop.time()
                    raise failed from None
                self.move_on()
                if not safe and not any(text in (e.details() or "") for text in _NEVER_SENT):
                    self.fault = str(failed)
                    raise failed from None
                tried += 1
                if tried % len(self._channels) == 0:
                    self.fault = str(failed)
                    await asyncio.sleep(0.1)
        self.fault = str(failed)
        raise failed

    def stream(self, method: str, request: type[Any], answer: type[Any]) -> Any:
        """A bidirectional stream to the current member."""
        if not self._channels:
            raise Unavailable("etcd: closed")
        invoke: Any = self._channels[self._current].stream_stream(
            method, request_serializer=request.SerializeToString, response_deserializer=answer.FromString
        )
        return invoke(metadata=HAS_LEADER)

    def unary_stream(self, method: str, request: Any, answer: type[Any]) -> Any:
        if not self._channels:
            raise Unavailable("etcd: closed")
        invoke: Any = self._channels[self._current].unary_stream(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        return invoke(request)

    def move_on(self) -> None:
        if self._channels:
            self._current = (self._current + 1) % len(self._channels)


def store_error(e: grpc.aio.AioRpcError) -> StoreError:
    return from_wire(e.code().value[0], e.details() or e.code().name)
