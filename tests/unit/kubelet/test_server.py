"""The small HTTP server and who may ask it."""

import asyncio

import pytest

from berg.kubelet.server import streams
from berg.kubelet.server.auth import Authorizer, User, attributes, from_certificate
from berg.kubelet.server.http import HTTPServer, Request, Response
from berg.machinery.clock import FakeClock


async def ask(port, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    data = await reader.read()
    writer.close()
    return data


async def serve(handler):
    server = HTTPServer(handler)
    await server.start("127.0.0.1", 0, None)
    return server


async def test_requests_and_answers():
    seen = []

    async def handler(request):
        seen.append((request.method, request.path, request.query, request.body))
        return Response(200, b"hello")

    server = await serve(handler)
    text = b"POST /a%20b?x=1&x=2&y HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.1\r\nConnection: close\r\n\r\n"
    data = await ask(server.port, text)
    assert seen == [("POST", "/a b", {"x": ["1", "2"], "y": [""]}, b"abc"), ("GET", "/c", {}, b"")]
    assert data.count(b"HTTP/1.1 200 OK") == 2
    assert data.endswith(b"hello")
    await server.stop()


async def test_chunks_and_errors():
    async def chunks():
        yield b"a"
        yield b"bc"

    async def handler(request):
        if request.path == "/bad":
            raise KeyError("x")
        return Response(200, chunks())

    server = await serve(handler)
    data = await ask(server.port, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert data.endswith(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
    assert b"500 Internal" in await ask(server.port, b"GET /bad HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert b"400 Bad" in await ask(server.port, b"nonsense\r\n\r\n")
    await server.stop()


async def test_an_upgrade_is_joined_byte_for_byte():
    async def backend(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /exec/token HTTP/1.1\r\nHost: 127.0.0.1")
        assert b"Upgrade: SPDY/3.1" in head
        assert b"secret" not in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        writer.write((await reader.read(5)).upper())
        await writer.drain()
        writer.close()

    behind = await asyncio.start_server(backend, "127.0.0.1", 0)
    port = behind.sockets[0].getsockname()[1]

    async def handler(request):
        return await streams.proxy(request, f"http://127.0.0.1:{port}/exec/token")

    server = await serve(handler)
    head = (
        b"POST /exec/a/b/c HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer secret\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head + b"bytes")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert await reader.readexactly(5) == b"BYTES"
    writer.close()
    await server.stop()
    behind.close()
    await behind.wait_closed()


def request(method, path, **headers):
    return Request(method, path, headers, None, None, path=path)


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/metrics/cadvisor", "get", ["metrics"]),
        ("GET", "/stats/summary", "get", ["stats"]),
        ("GET", "/pods", "get", ["pods", "proxy"]),
        ("GET", "/containerLogs/a/b/c", "get", ["proxy"]),
        ("POST", "/exec/a/b/c", "create", ["proxy"]),
        ("GET", "/logs/x", "get", ["log"]),
        ("GET", "/healthz", "get", ["healthz", "proxy"]),
    ],
)
def test_what_is_asked_for(method, path, verb, subresources):
    assert attributes(request(method, path)) == (verb, subresources)


def test_certificates_name_users():
    peer = {"subject": ((("organizationName", "system:masters"),), (("commonName", "admin"),))}
    assert from_certificate(peer) == User("admin", groups=("system:masters", "system:authenticated"))
    assert from_certificate({}) is None


class Api:
    def __init__(self, **may):
        self.may = may
        self.asked = 0

    async def create(self, r, review):
        self.asked += 1
        if review["kind"] == "TokenReview":
            ok = review["spec"]["token"] == "good"
            return {"status": {"authenticated": ok, "user": {"username": "u", "groups": ["g"]}}}
        spec = review["spec"]
        return {"status": {"allowed": spec["resourceAttributes"]["subresource"] in self.may.get(spec["user"], ())}}


async def test_tokens_and_decisions_are_kept_for_a_while():
    api, clock = Api(u=("proxy",)), FakeClock()
    auth = Authorizer(api, clock, "n1", anonymous=False, webhook=True, mode="Webhook")
    ask = request("GET", "/pods", authorization="Bearer good")
    user = await auth.authenticate(ask)
    assert user == User("u", groups=("g",))
    assert await auth.allowed(user, ask) == (True, "")
    asked = api.asked
    await auth.authenticate(ask)
    await auth.allowed(user, ask)
    assert api.asked == asked
    await clock.advance(121)
    await auth.authenticate(ask)
    assert api.asked == asked + 1
    metrics = request("GET", "/metrics")
    assert await auth.allowed(user, metrics) == (
        False,
        "Forbidden (user=u, verb=get, resource=nodes, subresource(s)=[metrics])",
    )


async def test_nobody_is_let_in_by_default():
    auth = Authorizer(Api(), FakeClock(), "n1", anonymous=False, webhook=True, mode="Webhook")
    assert await auth.authenticate(request("GET", "/pods")) is None
    assert await auth.authenticate(request("GET", "/pods", authorization="Bearer bad")) is None
