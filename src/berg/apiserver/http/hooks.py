"""Calling a webhook: a URL, or a service inside the cluster, over TLS with its own authority.

Source: k8s.io/apiserver pkg/util/webhook.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import orjson

from berg.apiserver.http.forward import Target, Unreachable, client_tls, forward
from berg.apiserver.http.message import Request
from berg.machinery.status import ApiError, Obj

MAX_ANSWER_BYTES = 10 << 20


class HookError(Exception):
    """No usable answer; the text is upstream's where it has one."""


@lru_cache(maxsize=256)
def _tls(ca_bundle: str) -> ssl.SSLContext:
    if not ca_bundle:
        return ssl.create_default_context()
    return client_tls(ca_data=base64.b64decode(ca_bundle))


async def call(services: Any, client: Obj, body: bytes, timeout_s: float, *, query: str = "") -> Obj:
    """POSTs JSON and returns the JSON answer. Raises HookError."""
    target, shown = await _target(services, client, query)
    headers = {
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "kube-apiserver-admission",
    }
    if services.tracing is not None:
        headers.update(services.tracing.headers())
    try:
        async with asyncio.timeout(timeout_s):
            response = await forward(Request("POST", target.path, headers=headers, body=body), target)
            answer = response.body
            if response.stream is not None:
                async for chunk in response.stream:
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise HookError("response too large")
    except TimeoutError:
        raise HookError(f'Post "{shown}": context deadline exceeded') from None
    except Unreachable as e:
        raise HookError(f'Post "{shown}": {e}') from None
    except ssl.SSLError as e:
        raise HookError(f'Post "{shown}": tls: {e.reason}') from None
    if response.status >= 300:
        text = answer.decode("utf-8", "replace").strip()
        raise HookError(text or f"the server answered {response.status}")
    try:
        parsed = orjson.loads(answer)
    except ValueError as e:
        raise HookError(f"couldn't get version/kind; json parse error: {e}") from None
    if not isinstance(parsed, dict):
        raise HookError("the answer is no object")
    return parsed


async def _target(services: Any, client: Obj, query: str) -> tuple[Target, str]:
    ca = client.get("caBundle") or ""
    url = client.get("url")
    if url:
        parts = urlsplit(url)
        shown = url if not query else f"{url}?{query}"
        target = Target(
            parts.hostname or "",
            parts.port or (443 if parts.scheme == "https" else 80),
            parts.path or "/",
            "&".join(p for p in (parts.query, query) if p),
            _tls(ca) if parts.scheme == "https" else None,
        )
        return target, shown
    service = client["service"]
    namespace, name, port = service["namespace"], service["name"], service.get("port") or 443
    host = f"{name}.{namespace}.svc"
    path = service.get("path") or "/"
    shown = f"https://{host}:{port}{path}" + (f"?{query}" if query else "")
    try:
        address, number = await resolve(services, namespace, name, port)
    except ApiError as e:
        raise HookError(f'Post "{shown}": {e.message}') from None
    return Target(address, number, path, query, _tls(ca), host), shown


async def resolve(services: Any, namespace: str, name: str, port: int) -> tuple[str, int]:
    """An address behind a service's port: an endpoint of it, reached without kube-proxy. Raises ApiError."""
    from berg.apiserver.subresources.proxy import endpoint
    from berg.machinery.resources import resource
    from berg.machinery.status import service_unavailable

    found = services.get(resource("services"), namespace, name)
    if found is None:
        raise service_unavailable(f'service "{name}" not found')
    spec = found.get("spec") or {}
    listed = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if listed is None:
        raise service_unavailable(f'no service port {port} found for service "{name}"')
    if spec.get("type") == "ExternalName":
        return spec["externalName"], port
    return await endpoint(services, namespace, name, listed.get("name") or "")
