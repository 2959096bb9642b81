"""What goes through the chain: a `Request` in, a `Response` out. No HTTP library shows beyond this room."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs

_BAD_PAIR = re.compile(r"[;]|%(?![0-9A-Fa-f]{2})")
"""what makes Go's parser drop a pair of a query"""


@dataclass(slots=True, frozen=True)
class User:
    """Who asks. Source: k8s.io/apiserver pkg/authentication/user."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()
    """what the audit log is told about the credential"""

    def info(self) -> dict[str, Any]:
        """As authentication.k8s.io/v1 UserInfo."""
        found: dict[str, Any] = {"username": self.name}
        if self.uid:
            found["uid"] = self.uid
        if self.groups:
            found["groups"] = list(self.groups)
        if self.extra:
            found["extra"] = {k: list(v) for k, v in self.extra.items()}
        return found


class Stream(Protocol):
    """The raw connection of a request that was upgraded (SPDY, WebSocket): bytes both ways."""

    reader: asyncio.StreamReader

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Request:
    """One HTTP request, its body read whole (bounded by the server). Header names are in lower case."""

    method: str
    path: str
    raw_query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer_certificate: bytes | None = None
    """DER of the client's certificate, as it came: authentication verifies it"""
    remote: str = ""
    user: User | None = None
    """set by authentication"""
    info: Any = None
    """the RequestInfo, set by the chain"""
    attributes: dict[str, Any] = field(default_factory=dict)
    """what one stage leaves for a later one (audit annotations, warnings, …)"""
    peer_intermediates: tuple[bytes, ...] = ()
    """what the client sent with it, between it and an authority"""
    protocol: str = "HTTP/1.1"
    """as traces tell it"""
    _query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        if self._query is None:
            raw = self.raw_query
            if _BAD_PAIR.search(raw):
                raw = "&".join(pair for pair in raw.split("&") if not _BAD_PAIR.search(pair))
            self._query = parse_qs(raw, keep_blank_values=True)
        return self._query

    def arg(self, name: str, default: str = "") -> str:
        values = self.query.get(name) if self.raw_query else None
        return values[0] if values else default


Upgrade = Callable[[Stream], Awaitable[None]]


@dataclass(slots=True)
class Response:
    """`body` whole, or `stream` in chunks (a watch, a log), or `upgrade`: status 101, then the raw connection
    is handed to the coroutine. Chunks are flushed as they come."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    upgrade: Upgrade | None = None


FLOW = "flow"
"""in the attributes of a request that failed: the UIDs of its flow schema and priority level, which its answer tells"""

Handler = Callable[[Request], Awaitable[Response]]
