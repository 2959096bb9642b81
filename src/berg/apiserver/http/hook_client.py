"""Speaking to webhooks: HTTPS to a URL or to a service, whose endpoints are known here without asking any DNS.

Redirects are followed, and who asks to be asked again later (`Retry-After`) is, as long as there is time.

Source: k8s.io/apiserver pkg/util/webhook/client.go, k8s.io/client-go rest/request.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import posixpath
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from berg.apiserver.admission.interface import Api
from berg.apiserver.http import hook_answer, hook_credentials
from berg.apiserver.http.hook_credentials import NOBODY, Credentials
from berg.apiserver.http.hooks import HookError, NoEndpoint, service_address
from berg.machinery.status import Obj

_LARGEST_ANSWER = 64 << 20
_AGENT = "kube-apiserver-admission"
_RETRIES = 10
_LONGEST_PAUSE = 6
"""digits of seconds; the call's own time is over long before"""


class HookClient:
    def __init__(self, api: Api, credentials: Credentials | None = None) -> None:
        self.api = api
        self._credentials = credentials or NOBODY
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, config: Obj, body: bytes, timeout_s: float, headers: Mapping[str, str], query: str) -> Any:
        """The webhook's answer, decoded. Raises HookError."""
        url, host, port = _target(config)
        user = self._credentials.user(host, port)
        try:
            tls = _tls(config.get("caBundle") or "", orjson.dumps(user))
            who = hook_credentials.headers(user)
        except (OSError, ValueError) as e:
            raise HookError(f"could not get REST client: {e}", asked=False, code=500) from None
        if query:
            url = f"{url}?{query}"
        own = {"Content-Type": "application/json", "Accept": "application/json, */*", "User-Agent": _AGENT, **who}
        try:
            async with asyncio.timeout(timeout_s):
                code, type_, answer = await self._ask(url, body, {**own, **headers}, tls)
        except TimeoutError:
            raise HookError(f'Post "{url}": context deadline exceeded') from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise HookError(f'Post "{url}": {_reason(e)}') from None
        return hook_answer.decoded(code, type_, answer)

    async def _ask(
        self, url: str, body: bytes, headers: Mapping[str, str], tls: ssl.SSLContext
    ) -> tuple[int, str | None, bytes]:
        """Code, content type and body of the answer."""
        for attempt in range(_RETRIES + 1):
            sent = self._opened().post(URL(url, encoded=True), data=body, headers=headers, ssl=tls)
            async with sent as response:
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _LARGEST_ANSWER:
                        raise ValueError(f"the answer is longer than {_LARGEST_ANSWER} bytes")
                code, type_ = response.status, response.headers.get("Content-Type")
                later = response.headers.get("Retry-After", "")
            wanted = later.isdecimal() and len(later) <= _LONGEST_PAUSE
            if not (code == 429 or code >= 500) or not wanted or attempt == _RETRIES:
                break
            await asyncio.sleep(int(later))
        return code, type_, bytes(answer)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=_Resolver(self.api), use_dns_cache=False, limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _target(config: Obj) -> tuple[str, str, int]:
    """URL, host and port. Raises HookError."""
    service = config.get("service")
    if service is not None:
        host, port = f"{service['name']}.{service['namespace']}.svc", service.get("port") or 443
        return f"https://{host}:{port}{_path(service.get('path') or '')}", host, port
    if not config.get("url"):
        why = "could not get REST client: webhook configuration must have either service or URL"
        raise HookError(why, asked=False, code=500)
    url = urlsplit(config["url"])
    return f"{url.scheme}://{url.netloc}{_path(unquote(url.path))}", url.hostname or "", url.port or 443


def _path(path: str) -> str:
    """Without steps that lead nowhere: doubled slashes, one at the end, dots."""
    return quote(posixpath.normpath(f"/{path.lstrip('/')}"), safe="/:@!$&'()*+,;=~")


@lru_cache(maxsize=256)
def _tls(bundle: str, user: bytes) -> ssl.SSLContext:
    """Raises ValueError, OSError."""
    try:
        roots = base64.b64decode(bundle).decode("ascii") if bundle else None
        context = ssl.create_default_context(cadata=roots)
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError):
        raise ValueError("unable to load root certificates: unable to parse bytes as PEM block") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # certificates without key identifiers are as good
    hook_credentials.load_certificate(context, orjson.loads(user))
    return context


_UNTRUSTED = {
    **dict.fromkeys((18, 19, 20, 21), "certificate signed by unknown authority"),
    **dict.fromkeys((9, 10), "certificate has expired or is not yet valid"),
}
"""by OpenSSL's number of the fault"""


def _reason(e: Exception) -> str:
    if isinstance(e, aiohttp.TooManyRedirects):
        return "stopped after 10 redirects"
    if isinstance(e, aiohttp.ClientConnectorCertificateError):
        e = e.certificate_error
    if isinstance(e, ssl.SSLCertVerificationError):
        why = _UNTRUSTED.get(e.verify_code, e.verify_message)
        return f"tls: failed to verify certificate: x509: {why}"
    if isinstance(e, aiohttp.ClientConnectorError):
        cause = e.os_error
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return "http: server gave HTTP response to HTTPS client"
        if isinstance(cause, NoEndpoint | ssl.SSLError):
            return str(cause)
        if isinstance(cause, socket.gaierror):
            return f"dial tcp: lookup {e.host}: no such host"
        why = (os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause)).lower()
        return f"dial tcp {e.host}:{e.port}: connect: {why}"
    return str(e) or type(e).__name__


class _Resolver(AbstractResolver):
    """`NAME.NAMESPACE.svc` is a ready endpoint of the service, else its cluster address; the rest asks the system."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        name, _, rest = host.partition(".")
        namespace, _, tail = rest.partition(".")
        if tail == "svc":
            address, number = service_address(self.api, namespace, name, port)
            if _is_address(address):
                return [_result(host, address, number)]
            host, port = address, number
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [_result(host, str(info[4][0]), port) for info in found]

    async def close(self) -> None: ...


def _is_address(text: str) -> bool:
    return urlsplit(f"//[{text}]").hostname is not None if ":" in text else text.replace(".", "").isdigit()


def _result(name: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=name,
        host=address,
        port=port,
        family=family,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
