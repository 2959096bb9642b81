"""The controller manager's own port: is it well (`/healthz`, `/livez`, `/readyz`), what has it done (`/metrics`).

The first three are for everyone, as upstream's default; the rest asks the API server who the token belongs to
(TokenReview) and whether that one may (SubjectAccessReview). Without a certificate it makes itself one.

Source: k8s.io/apiserver pkg/server/options (delegated authentication and authorization).
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from berg.client.metrics import Registry
from berg.client.rest import Client
from berg.controllers.config import Config
from berg.machinery.resources import resource
from berg.machinery.status import ApiError

if TYPE_CHECKING:
    from aiohttp import web

OPEN = frozenset({"/healthz", "/livez", "/readyz"})
REMEMBER_S = 10.0


class Serving:
    """`fault` says what is wrong, or nothing."""

    def __init__(self, client: Client, config: Config, metrics: Registry, fault: Callable[[], str | None]) -> None:
        self._client, self._config, self._metrics, self._fault = client, config, metrics, fault
        self._runner: web.ServerRunner | None = None
        self._allowed: dict[tuple[str, str], tuple[float, bool]] = {}
        self.port = config.secure_port

    async def start(self) -> None:
        from aiohttp import web

        server = web.Server(self._handle)
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        address = self._config.bind_address
        site = web.TCPSite(self._runner, address, max(self._config.secure_port, 0), ssl_context=self._tls())
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if self._config.tls_cert_file:
            context.load_cert_chain(self._config.tls_cert_file, self._config.tls_private_key_file)
            return context
        from berg.machinery import pki

        pair = pki.CertificateAuthority.create("kube-controller-manager").issue(
            "kube-controller-manager", names=["localhost", "127.0.0.1"], server=True
        )
        with tempfile.NamedTemporaryFile() as f:  # mode 0600; ssl reads certificates only from files
            f.write(pair.certificate + pair.key)
            f.flush()
            context.load_cert_chain(f.name)
        return context

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        path = request.path
        if path not in OPEN:
            code = await self._judge(request, path)
            if code:
                text = {401: "Unauthorized", 403: f'forbidden: cannot get path "{path}"'}[code]
                return web.Response(status=code, text=text)
        if path in OPEN:
            fault = self._fault()
            return web.Response(status=500, text=fault) if fault else web.Response(text="ok")
        if path == "/metrics":
            body = self._metrics.text().encode()
            return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
        return web.Response(status=404, text="404 page not found")

    async def _judge(self, request: web.BaseRequest, path: str) -> int:
        """0 when this one may; else the status to answer with."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return 401
        now = self._client.clock.monotonic()
        known = self._allowed.get((token, path))
        if known is not None and now - known[0] < REMEMBER_S:
            return 0 if known[1] else 403
        try:
            review = await self._client.create(
                resource("tokenreviews.authentication.k8s.io"), {"spec": {"token": token}}
            )
            status = review.get("status") or {}
            if not status.get("authenticated"):
                return 401
            user = status["user"]
            spec = {
                "user": user.get("username", ""),
                "groups": user.get("groups") or [],
                "uid": user.get("uid", ""),
                "nonResourceAttributes": {"path": path, "verb": request.method.lower()},
            }
            review = await self._client.create(resource("subjectaccessreviews.authorization.k8s.io"), {"spec": spec})
        except ApiError:
            return 401
        allowed = bool((review.get("status") or {}).get("allowed"))
        if len(self._allowed) > 1000:
            self._allowed.clear()
        self._allowed[token, path] = (now, allowed)
        return 0 if allowed else 403
