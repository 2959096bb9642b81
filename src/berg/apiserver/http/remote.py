"""A server that a kubeconfig file names: the webhooks of authentication, authorization and audit are configured so.

`Remote.post` sends a review and gives the answer back; what is worth trying again is tried again, with growing
pauses. Connections are kept.

Source: k8s.io/apiserver pkg/util/webhook/webhook.go; client-go tools/clientcmd.
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from berg.machinery.clock import Clock
from berg.machinery.codec import yaml as yaml_codec
from berg.machinery.status import Obj

MAX_ANSWER_BYTES = 10 << 20
TOLD = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


class BadKubeconfig(ValueError):
    """The file does not say where to go."""


class RemoteError(Exception):
    """No usable answer. `code`: the HTTP status, 0 when there was none; `result`: as upstream's metrics call it."""

    def __init__(self, message: str, code: int = 0, result: str = "error") -> None:
        super().__init__(message)
        self.code = code
        self.result = result

    @property
    def may_pass(self) -> bool:
        """Trying again may help. Source: webhook.DefaultShouldRetry."""
        return self.code in (429, 500) or "connection reset" in str(self).lower()


@dataclass(slots=True)
class Backoff:
    """Source: server/options DefaultAuthWebhookRetryBackoff."""

    first_s: float = 0.5
    factor: float = 1.5
    jitter: float = 0.2
    tries: int = 5

    def pauses(self) -> list[float]:
        return [self.first_s * self.factor**i * (1 + random.random() * self.jitter) for i in range(self.tries - 1)]


@dataclass(slots=True)
class Remote:
    url: str
    tls: ssl.SSLContext | None
    headers: dict[str, str]
    timeout_s: float = 30.0
    token_file: str = ""
    _session: Any = field(default=None, repr=False)

    async def post(self, obj: Obj) -> Obj:
        """Raises RemoteError."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=True)
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*", **self.headers}
        if self.token_file:
            headers["Authorization"] = f"Bearer {Path(self.token_file).read_text().strip()}"
        try:
            async with self._session.post(
                self.url,
                data=orjson.dumps(obj),
                headers=headers,
                ssl=self.tls or False,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s),
                allow_redirects=False,
            ) as response:
                body = await response.content.read(MAX_ANSWER_BYTES)
                while chunk := await response.content.read(1 << 16):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise RemoteError("the answer is too large")
                code = response.status
        except TimeoutError:
            raise RemoteError(f'Post "{self.url}": context deadline exceeded', result="timeout") from None
        except (aiohttp.ClientError, OSError) as e:
            raise RemoteError(f'Post "{self.url}": {e or type(e).__name__}') from None
        if not 200 <= code < 300:
            raise RemoteError(_refusal(code, body), code, "timeout" if code == 504 else "error")
        try:
            answer = orjson.loads(body) if body.strip() else {}
        except ValueError as e:
            raise RemoteError(f"couldn't get version/kind; json parse error: {e}", code) from None
        if not isinstance(answer, dict):
            raise RemoteError("couldn't get version/kind; json parse error: not an object", code)
        return answer

    async def post_patiently(self, obj: Obj, clock: Clock, backoff: Backoff, total_s: float | None = None) -> Obj:
        """The same, tried again. `total_s` bounds all tries together. Raises RemoteError."""
        pauses = backoff.pauses()
        try:
            async with asyncio.timeout(total_s):
                while True:
                    try:
                        return await self.post(obj)
                    except RemoteError as e:
                        if not e.may_pass or not pauses:
                            raise
                    await clock.sleep(pauses.pop(0))
        except TimeoutError:
            raise RemoteError(f'Post "{self.url}": context deadline exceeded', result="timeout") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _refusal(code: int, body: bytes) -> str:
    """What a client of upstream's says about an answer that is not a success.

    Source: k8s.io/apimachinery pkg/api/errors, NewGenericServerResponse.
    """
    try:
        told = orjson.loads(body)
        if isinstance(told, dict) and told.get("kind") == "Status" and told.get("message"):
            return str(told["message"])
    except ValueError:
        pass
    text = body[:2048].decode("utf-8", "replace").strip() or "unknown"
    if code in (403, 406, 415):
        return text
    if code in TOLD:
        return TOLD[code]
    if code >= 500:
        return f'an error on the server ("{text}") has prevented the request from succeeding'
    return f"the server responded with the status code {code} but did not return more information"


def read(path: str, *, timeout_s: float = 30.0) -> Remote:
    """The server and the credentials of the file's current context. Raises BadKubeconfig, OSError."""
    file = Path(path)
    config = yaml_codec.loads(file.read_bytes())
    if not isinstance(config, dict):
        raise BadKubeconfig(f"{path}: no kubeconfig")
    cluster, user = _chosen(config, path)
    server = cluster.get("server") or ""
    if not server:
        raise BadKubeconfig(f"{path}: invalid configuration: no server found for cluster")
    headers = {"User-Agent": "kube-apiserver"}
    if user.get("token"):
        headers["Authorization"] = f"Bearer {user['token']}"
    elif user.get("username"):
        pair = f"{user['username']}:{user.get('password') or ''}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    token_file = user.get("tokenFile") or ""
    tls = _tls(cluster, user, file.parent) if server.startswith("https") else None
    return Remote(server, tls, headers, timeout_s, str(file.parent / token_file) if token_file else "")


def _chosen(config: Obj, path: str) -> tuple[Obj, Obj]:
    """Cluster and user of the current context; without one, the only ones there are."""

    def named(section: str, field_: str, name: str) -> Obj:
        for entry in config.get(section) or ():
            if entry.get("name") == name:
                return entry.get(field_) or {}
        raise BadKubeconfig(f'{path}: {field_} "{name}" does not exist')

    name = config.get("current-context")
    if name:
        context = named("contexts", "context", name)
        cluster = named("clusters", "cluster", context.get("cluster") or "")
        return cluster, named("users", "user", context["user"]) if context.get("user") else {}
    clusters = config.get("clusters") or []
    if len(clusters) != 1:
        raise BadKubeconfig(f"{path}: no current-context")
    users = config.get("users") or [{}]
    return clusters[0].get("cluster") or {}, users[0].get("user") or {}


def _tls(cluster: Obj, user: Obj, directory: Path) -> ssl.SSLContext:
    ca = _bytes(cluster, "certificate-authority", directory)
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if ca:  # an authority made by older tools lacks what strict verification asks for
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate", directory), _bytes(user, "client-key", directory)
    if certificate:
        with tempfile.NamedTemporaryFile() as f:  # mode 0600; ssl reads certificates only from files
            f.write(certificate.rstrip() + b"\n" + key)
            f.flush()
            context.load_cert_chain(f.name)
    return context


def _bytes(section: Obj, name: str, directory: Path) -> bytes:
    data = section.get(f"{name}-data")
    if data:
        return base64.b64decode(data)
    return (directory / section[name]).read_bytes() if section.get(name) else b""
