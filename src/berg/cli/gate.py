"""What the processes of a cluster need of one another at their start: the API server, and no more."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from berg.client.rest import Client
from berg.client.transport import ConnectionFailed, HTTPTransport
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec
from berg.machinery.resources import Resource, resource

POLL_S = 0.02
log = logging.getLogger(__name__)


class ApiGate:
    """Holds up what is started after it until the API server is ready: no component needs to begin with refusals, and
    the pause that follows one, just because all processes of a cluster start together."""

    def __init__(self, layout: Layout, spec: ClusterSpec, *, patience_s: float | None = None) -> None:
        """`patience_s`: for what can do without; after that it is let through."""
        host = spec.nodes[0].address if any(n.netns for n in spec.nodes) else "127.0.0.1"
        self._url, self._authority = f"https://{host}:{spec.api_port}", layout.pki / "ca.crt"
        self._patience_s = patience_s

    async def start(self) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(self._authority)
        http = HTTPTransport(self._url, tls=tls)
        try:
            async with asyncio.timeout(self._patience_s):
                while not await _ready(http):  # noqa: ASYNC110 - there is nothing that would tell
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            pass
        finally:
            await http.close()

    async def stop(self) -> None: ...


async def _ready(http: HTTPTransport) -> bool:
    try:
        answer = await http.request("GET", "/readyz")
        await answer.read()
    except ConnectionFailed:
        return False
    return answer.status == 200


class Permission:
    """Holds up until its client may watch a resource: Berg's own roles are made when the API server is there already
    (`lifecycle.addons`)."""

    def __init__(self, client: Client, wanted: Resource) -> None:
        attributes = {"group": wanted.group, "resource": wanted.plural, "verb": "watch"}
        self._client, self._question = client, {"spec": {"resourceAttributes": attributes}}

    async def start(self) -> None:
        reviews = resource("selfsubjectaccessreviews.authorization.k8s.io")
        while not (await self._client.create(reviews, self._question))["status"]["allowed"]:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None: ...


async def _start(component: Any) -> None:
    await component.start()
    log.info("%s started", type(component).__name__)


class Together:
    """Components that need nothing of one another: started at once."""

    def __init__(self, *components: Any) -> None:
        self._components = components

    async def start(self) -> None:
        await asyncio.gather(*map(_start, self._components))

    async def stop(self) -> None:
        await asyncio.gather(*(c.stop() for c in reversed(self._components)))
