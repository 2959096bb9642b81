"""The scheduler's own port (10259, HTTPS): /healthz, /livez, /readyz for everyone, /metrics for whom the API server
lets: a bearer token is reviewed there, and whether its user may get /metrics.

Source: cmd/kube-scheduler/app, k8s.io/apiserver pkg/server/options (delegating authentication and authorization).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

from berg.client.rest import Client
from berg.machinery.clock import Clock, RealClock
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError

log = logging.getLogger(__name__)

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
REMEMBER_S = 10.0
TEXT = "text/plain; charset=utf-8"
Answer = tuple[int, str, bytes]
_PHRASES = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}


class Serving:
    """`port` 0 takes any free one; `self.port` says which. Without certificate files one is made for itself."""

    def __init__(
        self,
        client: Client,
        metrics: Callable[[], bytes],
        *,
        address: str = "0.0.0.0",
        port: int = 10259,
        certificate: str = "",
        key: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._client, self._metrics, self._address, self.port = client, metrics, address, port
        self._files = (certificate, key)
        self._clock: Clock = clock or RealClock()
        self._verdicts: dict[str, tuple[float, int]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, self._address, self.port, ssl=self._tls())
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._files
        if certificate:
            context.load_cert_chain(certificate, key)
            return context
        from berg.machinery import pki

        authority = pki.CertificateAuthority.create("kube-scheduler-ca")
        pair = authority.issue("kube-scheduler", names=["localhost", "127.0.0.1"], server=True)
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*pair.write(Path(directory), "tls"))
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            request, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = request.split(" ", 2)
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
            status, kind, body = await self.answer(method, path.partition("?")[0], headers.get("authorization", ""))
            writer.write(
                f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, method: str, path: str, authorization: str) -> Answer:
        if method != "GET":
            return 405, TEXT, b"method not allowed\n"
        if path in ("/healthz", "/livez", "/readyz"):
            return 200, TEXT, b"ok"
        if path != "/metrics":
            return 404, TEXT, b"404 page not found\n"
        verdict = await self._verdict(authorization)
        if verdict != 200:
            return verdict, TEXT, f"{_PHRASES[verdict]}\n".encode()
        return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics()

    async def _verdict(self, authorization: str) -> int:
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token:
            return 401
        now = self._clock.monotonic()
        kept = self._verdicts.get(token)
        if kept is None or now - kept[0] > REMEMBER_S:
            self._verdicts = {t: v for t, v in self._verdicts.items() if now - v[0] <= REMEMBER_S}
            kept = self._verdicts[token] = (now, await self._ask(token))
        return kept[1]

    async def _ask(self, token: str) -> int:
        try:
            review = await self._client.create(TOKEN_REVIEWS, {"spec": {"token": token}})
            status = review.get("status") or {}
            if not status.get("authenticated"):
                return 401
            user = status["user"]
            access = await self._client.create(
                ACCESS_REVIEWS,
                {
                    "spec": {
                        "user": user.get("username"),
                        "uid": user.get("uid"),
                        "groups": user.get("groups"),
                        "extra": user.get("extra"),
                        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
                    }
                },
            )
        except ApiError as e:
            log.warning("cannot tell who asks for metrics: %s", e.message)
            return 401
        return 200 if (access.get("status") or {}).get("allowed") else 403
