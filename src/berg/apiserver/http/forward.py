"""Sending a request on to another server: its answer streamed back, or, when it was upgraded, both ends joined.

One connection for one request, over asyncio's streams. Used towards kubelets, pods, services and aggregated API
servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from berg.apiserver.http.message import Request, Response, Stream
from berg.machinery import status

CONNECT_S = 10.0
_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "host",
        "authorization",
        "date",
    )
)
_NEVER_FORWARDED = ("impersonate-", "x-remote-")
"""who asks is said by this server alone"""
_CHUNK = 64 * 1024


class Unreachable(Exception):
    """No connection, or it broke before an answer."""


@dataclass(slots=True)
class Target:
    host: str
    port: int
    path: str
    query: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


async def forward(request: Request, target: Target, extra: Mapping[str, str] | None = None) -> Response:
    """Raises Unreachable."""
    upgrading = "upgrade" in request.headers.get("connection", "").lower() and "upgrade" in request.headers
    reader, writer = await _connect(target)
    try:
        writer.write(_head(request, target, extra or {}, upgrading) + request.body)
        await writer.drain()
        code, headers = await _read_head(reader)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as e:
        writer.close()
        raise Unreachable(str(e) or type(e).__name__) from None
    except BaseException:
        writer.close()
        raise
    if code == 101:
        kept = {k: v for k, v in headers if k.lower() not in ("date",)}
        return Response(101, headers=kept, upgrade=lambda stream: splice(stream, reader, writer))
    shown: dict[str, str] = {}
    lengths = {}
    for name, value in headers:
        lower = name.lower()
        lengths[lower] = value
        if lower in _HOP or lower == "content-type":
            continue
        shown[name] = f"{shown[name]}\n{value}" if name in shown else value
    content_type = lengths.get("content-type", "")
    if request.method == "HEAD" or code in (204, 304):
        writer.close()
        return Response(code, b"", content_type, shown)
    length = lengths.get("content-length")
    if length is not None and int(length) <= _CHUNK:
        try:
            body = await reader.readexactly(int(length))
        except asyncio.IncompleteReadError as e:
            body = e.partial
        writer.close()
        return Response(code, body, content_type, shown)
    chunked = "chunked" in lengths.get("transfer-encoding", "").lower()
    stream = _body(reader, writer, chunked=chunked, length=None if length is None else int(length))
    return Response(code, content_type=content_type, headers=shown, stream=stream)


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_S):
            return await asyncio.open_connection(
                target.host,
                target.port,
                ssl=target.tls,
                server_hostname=(target.server_name or target.host) if target.tls else None,
                limit=1 << 20,
            )
    except (OSError, TimeoutError, ssl.SSLError) as e:
        raise Unreachable(_reason(e, target)) from None


def _reason(error: OSError, target: Target) -> str:
    """In the words that clients know from upstream."""
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {target.host}: no such host"
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = error.verify_code in (18, 19, 20, 21)
        why = "certificate signed by unknown authority" if unknown else error.verify_message
        return f"tls: failed to verify certificate: x509: {why}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return f"dial tcp {target.authority}: i/o timeout"
    why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
    return f"dial tcp {target.authority}: connect: {why}"


def _head(request: Request, target: Target, extra: Mapping[str, str], upgrading: bool) -> bytes:
    path = target.path + (f"?{target.query}" if target.query else "")
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {target.authority}"]
    for name, value in request.headers.items():
        if name in _HOP or name.startswith(_NEVER_FORWARDED):
            continue
        lines += [f"{name}: {one}" for one in value.split("\n")]
    for name, value in extra.items():
        lines += [f"{name}: {one}" for one in value.split("\n")]
    if upgrading:
        lines += ["Connection: Upgrade", f"Upgrade: {request.headers['upgrade']}"]
    else:
        lines.append("Connection: close")
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(request.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        code = int(head[0].split(" ", 2)[1])
        if code != 100:
            break
    headers = []
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip(), value.strip()))
    return code, headers


async def _body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, chunked: bool, length: int | None
) -> AsyncIterator[bytes]:
    try:
        if chunked:
            while True:
                size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if size == 0:
                    return
                yield (await reader.readexactly(size + 2))[:-2]
        left = length
        while left is None or left > 0:
            data = await reader.read(_CHUNK if left is None else min(_CHUNK, left))
            if not data:
                return
            if left is not None:
                left -= len(data)
            yield data
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return
    finally:
        writer.close()


async def splice(client: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes both ways until either side ends."""

    async def inward() -> None:
        while data := await client.reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def outward() -> None:
        while data := await reader.read(_CHUNK):
            client.write(data)
            await client.drain()

    tasks = [asyncio.ensure_future(inward()), asyncio.ensure_future(outward())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1] not in done:  # the client is done: what the server still says is waited for, briefly
            await asyncio.wait(tasks, timeout=5.0)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        client.close()


def client_tls(ca_file: str = "", cert_file: str = "", key_file: str = "", *, ca_data: bytes = b"") -> ssl.SSLContext:
    """Without an authority the peer is not verified, as upstream's `--kubelet-certificate-authority` says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file or ca_data:
        context.load_verify_locations(ca_file or None, cadata=ca_data.decode() if ca_data else None)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context


def unavailable(error: Unreachable) -> status.ApiError:
    return status.service_unavailable(f"error trying to reach service: {error}")
