"""Requests that are wrong as HTTP, before anybody is asked: the answers are those of upstream's server (Go's), seen."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.http.tls import server_context
from berg.machinery.pki import CertificateAuthority

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /other HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
async def seen() -> AsyncIterator[tuple[HTTPServer, list[Request]]]:
    requests: list[Request] = []

    async def handler(request: Request) -> Response:
        requests.append(request)
        return Response(200, b"{}")

    server = HTTPServer(handler, host="127.0.0.1")
    await server.start()
    try:
        yield server, requests
    finally:
        await server.stop()


async def answer(server: HTTPServer, sent: bytes) -> bytes:
    """Everything that comes until the server closes, or the first whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"onnection: close" in head:
                return head + await reader.read()
            return head
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "line", "text"),
    [
        (HEAD + b"Host: b\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400 Bad Request", b"400 Bad Request: malformed Host header"),
        (
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"505 ",
            b"505 HTTP Version Not Supported: unsupported protocol version",
        ),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"501 ", b"Unsupported transfer encoding"),
        (HEAD + b"Transfer-Encoding: identity\r\n\r\n", b"501 ", b"Unsupported transfer encoding"),
        (HEAD + b"Expect: something\r\n\r\n", b"417 Expectation Failed", b""),
        (HEAD + SMUGGLED, b"400 Bad Request", b"400 Bad Request"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", b"400 Bad Request", b"400 Bad Request"),
        (HEAD + b"Content-Length: -1\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
        (HEAD + b"Foo: a\0b\r\n\r\n", b"400 Bad Request", b"400 Bad Request"),
    ],
)
async def test_refused(seen: tuple[HTTPServer, list[Request]], sent: bytes, line: bytes, text: bytes) -> None:
    server, requests = seen
    told = await answer(server, sent)
    assert told.startswith(b"HTTP/1.1 " + line)
    assert told.partition(b"\r\n\r\n")[2] == text
    assert requests == []  # nobody was asked, for nothing of it


async def test_of_two_only_the_first_counts(seen: tuple[HTTPServer, list[Request]]) -> None:
    server, requests = seen
    await answer(server, HEAD + b"Authorization: a\r\nAuthorization: b\r\nVia: x\r\nVia: y\r\n\r\n")
    assert (requests[0].headers["authorization"], requests[0].headers["via"]) == ("a", "x, y")


async def test_names_are_read_as_text(seen: tuple[HTTPServer, list[Request]]) -> None:
    server, requests = seen
    await answer(server, HEAD + "Impersonate-User: Zoë\r\n\r\n".encode())
    assert requests[0].headers["impersonate-user"] == "Zoë"


async def test_no_body_is_waited_for_where_there_is_none(seen: tuple[HTTPServer, list[Request]]) -> None:
    told = await answer(seen[0], HEAD + b"Expect: 100-continue\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 OK")


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[HTTPServer]:
    async def handler(request: Request) -> Response:
        return Response(200, b"{}")

    authority = CertificateAuthority.create("test")
    certificate, key = authority.issue("localhost", names=["localhost"], server=True).write(tmp_path, "localhost")
    context = server_context(str(certificate), str(key))
    server = HTTPServer(handler, host="127.0.0.1", tls=context)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_http_where_tls_is_spoken(secured: HTTPServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.port)
    writer.write(HEAD + b"\r\n")
    async with asyncio.timeout(30):
        told = await reader.readuntil(b"server.\n")
    writer.close()
    assert told.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert told.endswith(b"\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")


async def test_an_old_version_is_told_so(secured: HTTPServer) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        async with asyncio.timeout(30):
            await asyncio.open_connection("127.0.0.1", secured.port, ssl=old)
