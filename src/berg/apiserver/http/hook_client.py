"""Speaking to webhooks: HTTPS to a URL or to a service, whose endpoints are known here without asking any DNS.

Source: k8s.io/apiserver pkg/util/webhook/client.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from berg.apiserver.admission.interface import Api
from berg.apiserver.http.hooks import HookError, NoEndpoint, service_address
from berg.machinery.codec import json
from berg.machinery.status import Obj

_LARGEST_ANSWER = 16 << 20
_AGENT = "kube-apiserver-admission"


class HookClient:
    def __init__(self, api: Api) -> None:
        self.api = api
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, config: Obj, body: bytes, timeout_s: float, headers: Mapping[str, str], query: str) -> Any:
        """The webhook's answer, decoded. Raises HookError."""
        url = f"{_url(config)}?{query}" if query else _url(config)
        own = {"Content-Type": "application/json", "Accept": "application/json, */*", "User-Agent": _AGENT}
        try:
            async with self._opened().post(
                url,
                data=body,
                headers={**own, **headers},
                ssl=_tls(config.get("caBundle") or ""),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                answer = await response.content.read(_LARGEST_ANSWER)
                while chunk := await response.content.read(_LARGEST_ANSWER - len(answer)):
                    answer += chunk
                code, kind = response.status, response.headers.get("Content-Type", "")
        except TimeoutError:
            raise HookError(f'Post "{url}": context deadline exceeded') from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise HookError(f'Post "{url}": {_reason(e)}') from None
        if not 200 <= code < 300:
            raise HookError(_refusal(code, answer))
        if not answer:
            raise HookError(f"0-length response with status code: {code} and content type: {kind}")
        try:
            return json.loads(answer)
        except ValueError as e:
            raise HookError(f"couldn't get version/kind; json parse error: {e}") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=_Resolver(self.api), use_dns_cache=False, limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _url(config: Obj) -> str:
    service = config.get("service")
    if service is not None:
        path = (service.get("path") or "").lstrip("/")
        return f"https://{service['name']}.{service['namespace']}.svc:{service.get('port') or 443}/{path}"
    if not config.get("url"):
        why = "could not get REST client: webhook configuration must have either service or URL"
        raise HookError(why, asked=False)
    return str(config["url"])


@lru_cache(maxsize=256)
def _tls(bundle: str) -> ssl.SSLContext:
    try:
        roots = base64.b64decode(bundle).decode("ascii") if bundle else None
        context = ssl.create_default_context(cadata=roots)
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as e:
        raise ValueError(f"unable to load root certificates: {e}") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # certificates without key identifiers are as good
    return context


def _reason(e: Exception) -> str:
    if isinstance(e, aiohttp.ClientConnectorCertificateError):
        e = e.certificate_error
    if isinstance(e, ssl.SSLCertVerificationError):
        unknown = e.verify_code in (18, 19, 20, 21)
        why = "certificate signed by unknown authority" if unknown else e.verify_message
        return f"tls: failed to verify certificate: x509: {why}"
    if isinstance(e, aiohttp.ClientConnectorError):
        cause = e.os_error
        if isinstance(cause, NoEndpoint | ssl.SSLError):
            return str(cause)
        why = (os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause)).lower()
        return f"dial tcp {e.host}:{e.port}: connect: {why}"
    return str(e) or type(e).__name__


def _refusal(code: int, body: bytes) -> str:
    """What a client of upstream's says about an answer that is not a success."""
    try:
        told = json.loads(body)
        if isinstance(told, dict) and told.get("kind") == "Status" and told.get("message"):
            return str(told["message"])
    except ValueError:
        pass
    text = body[:2048].decode("utf-8", "replace").strip() or "unknown"
    match code:
        case 404:
            return "the server could not find the requested resource"
        case 401:
            return "the server has asked for the client to provide credentials"
        case 403:
            return f"forbidden: {text}"
        case _ if code >= 500:
            return f'an error on the server ("{text}") has prevented the request from succeeding'
        case _:
            return f"the server responded with the status code {code} but did not return more information"


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
