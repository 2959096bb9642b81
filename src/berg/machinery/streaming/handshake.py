"""Upgrading an HTTP/1.1 request to SPDY/3.1 or WebSocket, and agreeing on the protocol spoken on top.

Source: RFC 6455 section 4; k8s.io/streaming httpstream.Handshake, wsstream.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from berg.machinery.status import ApiError, bad_request

EXEC_SPDY = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
EXEC_WEBSOCKET = (
    "v5.channel.k8s.io",
    "v5.base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
PORT_FORWARD_SPDY = ("portforward.k8s.io",)
TUNNEL = "SPDY/3.1+portforward.k8s.io"
PORT_FORWARD_WEBSOCKET = (TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")

READER_WEBSOCKET = ("binary.k8s.io", "base64.binary.k8s.io")

PROTOCOL_HEADER = "x-stream-protocol-version"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(slots=True, frozen=True)
class Handshake:
    """What was agreed on; `headers` belong into the 101 answer. `protocol` is "" when the client named none."""

    transport: Literal["spdy", "websocket"]
    protocol: str
    headers: dict[str, str] = field(default_factory=dict)


def handshake_for_exec(method: str, headers: Mapping[str, str]) -> Handshake:
    """For exec and attach. Header names in lower case. Raises ApiError 400, 403 or 405."""
    return _accept(method, headers, EXEC_SPDY, EXEC_WEBSOCKET)


def handshake_for_port_forward(method: str, headers: Mapping[str, str]) -> Handshake:
    return _accept(method, headers, PORT_FORWARD_SPDY, PORT_FORWARD_WEBSOCKET)


def handshake_for_reader(method: str, headers: Mapping[str, str]) -> Handshake:
    """For logs and watches that are asked for over WebSocket."""
    return _accept(method, headers, (), READER_WEBSOCKET)


def is_websocket(headers: Mapping[str, str]) -> bool:
    return is_upgrade(headers) and headers.get("upgrade", "").lower() == "websocket"


def is_upgrade(headers: Mapping[str, str]) -> bool:
    return "upgrade" in _tokens(headers.get("connection", ""))


def _tokens(value: str) -> list[str]:
    return [t.strip().lower() for t in value.split(",") if t.strip()]


def _names(value: str) -> list[str]:
    return [t.strip() for t in value.split(",") if t.strip()]


def _accept(method: str, headers: Mapping[str, str], spdy: Sequence[str], websocket: Sequence[str]) -> Handshake:
    if is_websocket(headers):
        return _websocket(method, headers, websocket)
    if not spdy or not is_upgrade(headers) or headers.get("upgrade", "").lower() != "spdy/3.1":
        raise bad_request("Upgrade request required")
    return _spdy(headers, spdy)


def _spdy(headers: Mapping[str, str], supported: Sequence[str]) -> Handshake:
    answer = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    wanted = _names(headers.get(PROTOCOL_HEADER, ""))
    if not wanted:
        return Handshake("spdy", "", answer)
    chosen = next((p for p in wanted if p in supported), None)
    if chosen is None:
        raise ApiError(
            403,
            "Forbidden",
            f"unable to upgrade: unable to negotiate protocol: client supports {_go(wanted)}, "
            f"server accepts {_go(supported)}",
        )
    return Handshake("spdy", chosen, {**answer, "X-Stream-Protocol-Version": chosen})


def _go(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _websocket(method: str, headers: Mapping[str, str], supported: Sequence[str]) -> Handshake:
    if method != "GET":
        raise ApiError(405, "MethodNotAllowed", "WebSocket upgrade must use GET")
    key = headers.get("sec-websocket-key", "")
    if not key or headers.get("sec-websocket-version", "").strip() != "13":
        raise bad_request("WebSocket version 13 and a key are required")
    wanted = _names(headers.get("sec-websocket-protocol", ""))
    chosen = next((p for p in wanted if p in supported), None)
    if wanted and chosen is None:
        raise ApiError(
            403, "Forbidden", f"requested protocol(s) are not supported: {_go(wanted)}; supports {_go(supported)}"
        )
    answer = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept_key(key)}
    if chosen:
        answer["Sec-WebSocket-Protocol"] = chosen
    return Handshake("websocket", chosen or "", answer)


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(f"{key.strip()}{_GUID}".encode()).digest()).decode()


# ---- the client's side ----------------------------------------------------------------------------------


def request_headers(transport: Literal["spdy", "websocket"], protocols: Sequence[str]) -> list[tuple[str, str]]:
    """What a client that asks for an upgrade sends. SPDY servers before v1.29 read one protocol a line."""
    if transport == "spdy":
        return [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            *(("X-Stream-Protocol-Version", p) for p in protocols),
        ]
    return [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
        *([("Sec-WebSocket-Protocol", ", ".join(protocols))] if protocols else []),
    ]
