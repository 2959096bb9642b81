"""A small OpenID issuer over TLS, and small webhooks: what the API server is configured to ask."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from jwt.algorithms import RSAAlgorithm

from berg.machinery import pki

AUTHORITY = pki.CertificateAuthority.create("tests")


@cache
def _key(_: str) -> Any:
    """Making one takes its time."""
    return pki.new_rsa_key()


class TLSServer:
    """Answers GET and POST by path on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def start(self) -> None:
        pair = AUTHORITY.issue("localhost", names=["localhost", "127.0.0.1"], server=True)
        cert, key = pair.write(self.directory, "server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"https://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.path, body))
        answer = self.answers.get(request.path)
        if answer is None:
            return web.Response(status=404, text="not found")
        found = answer(body)
        if isinstance(found, int):
            return web.Response(status=found, text="broken")
        if isinstance(found, str):
            return web.Response(text=found)
        return web.json_response(found)

    def kubeconfig(self, path: str = "") -> str:
        file = self.directory / "webhook.kubeconfig"
        ca = self.directory / "ca.crt"
        ca.write_bytes(AUTHORITY.certificate)
        cluster = {"server": self.url + path, "certificate-authority": "ca.crt"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "w", "cluster": cluster}],
            "users": [{"name": "a", "user": {"token": "let-me-ask"}}],
            "contexts": [{"name": "w", "context": {"cluster": "w", "user": "a"}}],
            "current-context": "w",
        }
        file.write_text(json.dumps(config))
        return str(file)


class OpenIDIssuer(TLSServer):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.rotate("one")
        self.answers["/keys"] = lambda _: {"keys": [self._jwk()]}
        self.answers["/.well-known/openid-configuration"] = lambda _: {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
        }

    def rotate(self, key_id: str) -> None:
        self.key, self.key_id = _key(key_id), key_id

    def _jwk(self) -> dict[str, Any]:
        return {**json.loads(RSAAlgorithm.to_jwk(self.key.public_key())), "kid": self.key_id, "use": "sig"}

    def claims(self, now: float) -> dict[str, Any]:
        return {"iss": self.url, "aud": "berg", "exp": int(now) + 300, "iat": int(now)}

    def signed(self, claims: dict[str, Any]) -> str:
        """Also claims that no well-behaved issuer would make."""
        payload = json.dumps(claims).encode()
        return jwt.PyJWS().encode(payload, self.key, algorithm="RS256", headers={"kid": self.key_id})

    def token(self, now: float, **claims: Any) -> str:
        return self.signed({**self.claims(now), **claims})

    def asked_for(self, path: str) -> int:
        return [p for p, _ in self.asked].count(path)
