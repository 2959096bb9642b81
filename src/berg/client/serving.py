"""A component's own HTTPS port: is it well (`/healthz`, `/livez`, `/readyz`), what has it done (`/metrics`).

The first three are for everyone, as upstream's default. Who asks for the rest is known by a client certificate of the
cluster's authority (the ConfigMap `extension-apiserver-authentication`), or by a token, which the API server is asked
about (TokenReview); whether that one may it is asked too (SubjectAccessReview), and its answer is remembered for a
moment. Without a certificate of its own one is made at start.

Source: k8s.io/apiserver pkg/server/options (delegated authentication and authorization).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from berg.client.rest import Client
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

OPEN = frozenset({"/healthz", "/livez", "/readyz"})
REMEMBER_S = 10.0
REQUEST_S = 5.0
_REMEMBERED = 1000
RETRY_S = 2.0
_CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
_AUTHENTICATION = "extension-apiserver-authentication"
_TOKENS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
_ACCESS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
_PHRASES = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 500: "Error"}
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Serving:
    """`port` 0 takes any free one; `self.port` says which. `fault` says what is wrong, or nothing."""

    def __init__(
        self,
        client: Client,
        component: str,
        metrics: Callable[[], bytes],
        *,
        address: str = "0.0.0.0",
        port: int = 0,
        certificate: str = "",
        key: str = "",
        fault: Callable[[], str | None] = lambda: None,
        more: Mapping[str, Callable[[], bytes]] | None = None,
    ) -> None:
        """`more`: other paths for who may, each with what it says."""
        self._client, self._component, self._fault = client, component, fault
        self._pages = {"/metrics": metrics, **(more or {})}
        self._address, self.port, self._files = address, port, (certificate, key)
        self._verdicts: dict[tuple[str, str], tuple[float, int]] = {}
        """(who, path) → until when, HTTP code"""
        self._server: asyncio.Server | None = None
        self._trusting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        context = self._tls()
        self._server = await asyncio.start_server(self._serve, self._address, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        self._trusting = asyncio.get_running_loop().create_task(self._trust(context))

    async def _trust(self, context: ssl.SSLContext) -> None:
        """Client certificates count as soon as the API server has told by whom they must be signed."""
        while True:
            try:
                found = await self._client.get(_CONFIG_MAPS, "kube-system", _AUTHENTICATION)
            except ApiError as e:
                log.debug("%s is not read yet: %s", _AUTHENTICATION, e.message)
                await self._client.clock.sleep(RETRY_S)
                continue
            if authority := (found.get("data") or {}).get("client-ca-file"):
                context.load_verify_locations(cadata=authority)
                context.verify_mode = ssl.CERT_OPTIONAL
            return

    async def stop(self) -> None:
        await end(self._trusting)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = self._files
        if certificate:
            context.load_cert_chain(certificate, key)
            return context
        from berg.machinery import pki

        authority = pki.CertificateAuthority.create(f"{self._component}-ca")
        pair = authority.issue(self._component, names=["localhost", "127.0.0.1"], server=True)
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*pair.write(Path(directory), "tls"))
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_S)
            request, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = request.split(" ", 2)
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
            known = _named(writer.get_extra_info("peercert") or {})
            path = path.partition("?")[0]
            status, body = await self.answer(method, path, headers.get("authorization", ""), known)
            kind = _METRICS if status == 200 and path not in OPEN else "text/plain; charset=utf-8"
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

    async def answer(self, method: str, path: str, authorization: str, known: Obj | None) -> tuple[int, bytes]:
        """`known`: whom a client certificate names."""
        if method != "GET":
            return 405, b"method not allowed\n"
        if path in OPEN:
            fault = self._fault()
            return (500, fault.encode()) if fault else (200, b"ok")
        verdict = await self._verdict(path, authorization, known)
        if verdict != 200:
            return verdict, f'forbidden: cannot get path "{path}"\n'.encode() if verdict == 403 else b"Unauthorized\n"
        page = self._pages.get(path)
        return (404, b"404 page not found\n") if page is None else (200, page())

    async def _verdict(self, path: str, authorization: str, known: Obj | None) -> int:
        kind, _, token = authorization.partition(" ")
        if known is None and (kind.lower() != "bearer" or not token):
            return 401
        now = self._client.clock.monotonic()
        who = repr(known) if known is not None else token
        kept = self._verdicts.get((who, path))
        if kept is None or now - kept[0] > REMEMBER_S:
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.clear()
            kept = self._verdicts[who, path] = (now, await self._ask(path, token, known))
        return kept[1]

    async def _ask(self, path: str, token: str, user: Obj | None) -> int:
        try:
            if user is None:
                review = await self._client.create(_TOKENS, {"spec": {"token": token}})
                status = review.get("status") or {}
                if not status.get("authenticated"):
                    return 401
                user = status["user"]
            spec = {
                "user": user.get("username"),
                "uid": user.get("uid"),
                "groups": user.get("groups"),
                "extra": user.get("extra"),
                "nonResourceAttributes": {"path": path, "verb": "get"},
            }
            access = await self._client.create(_ACCESS, {"spec": spec})
        except ApiError as e:
            log.warning("cannot tell who asks for %s: %s", path, e.message)
            return 401
        return 200 if (access.get("status") or {}).get("allowed") else 403


def _named(certificate: Obj) -> Obj | None:
    """The user that a verified certificate names: its common name, and its organizations as groups."""
    parts = [pair for rdn in certificate.get("subject") or () for pair in rdn]
    name = next((value for key, value in parts if key == "commonName"), "")
    if not name:
        return None
    groups = [value for key, value in parts if key == "organizationName"]
    return {"username": name, "groups": [*groups, "system:authenticated"]}
