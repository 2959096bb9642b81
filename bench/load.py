"""A load generator for API servers: keep-alive connections over TLS, one request at a time on each.

Bare protocol, no HTTP library: the client must not be what is measured. Answers are read whole and counted;
an answer that is not 2xx is an error.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Result:
    count: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    bytes: int = 0

    @property
    def rate(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0

    def percentile_ms(self, p: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * p))] * 1000 if ordered else 0.0


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    certificate: Path
    key: Path

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a load tool on loopback
        context.load_cert_chain(self.certificate, self.key)
        return context


Make = Callable[[int], tuple[str, str, bytes, str]]
"""number of the request → method, path, body, content type"""


def encode(method: str, path: str, body: bytes, content_type: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\n"
    if body:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    """(status, bytes of the body)"""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    low = head.lower()
    if (at := low.find(b"content-length:")) >= 0:
        size = int(low[at + 15 : low.index(b"\r", at)])
        await reader.readexactly(size)
        return status, size
    total = 0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readexactly(2)
    return status, total


async def drive(server: Server, make: Make, clients: int, seconds: float, limit: int = 0) -> Result:
    """`clients` connections, each as fast as it is answered, for `seconds` or until `limit` requests."""
    result, tls = Result(), server.tls()
    connections = [
        await asyncio.open_connection(server.host, server.port, ssl=tls, limit=1 << 26) for _ in range(clients)
    ]
    began = time.perf_counter()
    number = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        while time.perf_counter() - began < seconds and (not limit or number < limit):
            number += 1
            request = encode(*make(number))
            sent = time.perf_counter()
            writer.write(request)
            status, size = await read_answer(reader)
            result.latencies.append(time.perf_counter() - sent)
            result.count += 1
            result.bytes += size
            result.errors += not 200 <= status < 300

    await asyncio.gather(*(client(r, w) for r, w in connections))
    result.seconds = time.perf_counter() - began
    for _, writer in connections:
        writer.close()
    return result
