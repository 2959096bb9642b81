"""What a method of etcd's API is, whichever way it is called: one table serves gRPC and the JSON gateway.

A unary method is `async (Call, request) → answer`; a streaming one is an async generator
`(Call, requests) → answers`, where `requests` is an async iterator. Failures are `RpcError` (or a StoreError,
which becomes one).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from berg.storage.etcd.errors import to_wire
from berg.storage.interface import StoreError

Message = Any


class RpcError(Exception):
    """`code` is a gRPC status code by number (see storage.etcd.errors)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def of(cls, error: StoreError) -> RpcError:
        return cls(*to_wire(error))


@dataclass(slots=True)
class Call:
    """Who calls."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    common_name: str = ""
    """of the client certificate, when there is one"""

    @property
    def token(self) -> str:
        return self.metadata.get("token") or self.metadata.get("authorization") or ""


Unary = Callable[[Call, Message], Awaitable[Message]]
Stream = Callable[[Call, AsyncIterator[Message]], AsyncIterator[Message]]


@dataclass(slots=True, frozen=True)
class Method:
    """`path` is gRPC's; `http` the gateway's paths behind `/v3`."""

    path: str
    request: type[Any]
    answer: type[Any]
    unary: Unary | None = None
    stream: Stream | None = None
    http: tuple[str, ...] = ()
    client_streams: bool = False
