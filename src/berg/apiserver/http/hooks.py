"""Webhooks of the cluster: a URL or a service, asked over TLS with an authority of its own. Admission and the
conversion of custom resources ask through here.

What speaks HTTP (`hook_client`) is loaded with the first call. A service's endpoints are known here without asking any
DNS, and reached without any proxy.

Source: k8s.io/apiserver pkg/util/webhook.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from berg.machinery.resources import resource
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.http.hook_client import HookClient
    from berg.apiserver.http.hook_credentials import Credentials

_SERVICES = resource("services")
_SLICES = resource("endpointslices.discovery.k8s.io")


class HookError(Exception):
    """No usable answer; the text is upstream's. `asked`: it was tried. `code`: what metrics count it as."""

    def __init__(self, why: str, *, asked: bool = True, code: int = 503) -> None:
        super().__init__(why)
        self.asked = asked
        self.code = code


class NoEndpoint(OSError):
    """A service that cannot be reached, in upstream's words."""


class Hooks:
    def __init__(self, api: Any, credentials: Credentials | None = None) -> None:
        """`api`: reads services and their endpoints (`get`, `list`)."""
        self.api = api
        self._credentials = credentials
        self._client: HookClient | None = None

    async def post(
        self, config: Obj, body: bytes, timeout_s: float, *, headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Any:
        """`config`: a `clientConfig`. The answer, decoded. Raises HookError."""
        if self._client is None:
            from berg.apiserver.http.hook_client import HookClient

            self._client = HookClient(self.api, self._credentials)
        return await self._client.post(config, body, timeout_s, headers or {}, query)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


async def resolve(services: Any, namespace: str, name: str, port: int) -> tuple[str, int]:
    """An endpoint behind a service's port. Raises ApiError."""
    from berg.machinery.status import service_unavailable

    try:
        return service_address(services, namespace, name, port, only_endpoints=True)
    except NoEndpoint as e:
        raise service_unavailable(str(e)) from None


def service_address(
    api: Any, namespace: str, name: str, number: int, *, only_endpoints: bool = False
) -> tuple[str, int]:
    """A ready endpoint of the service, else its cluster address. Raises NoEndpoint."""
    service = api.get(_SERVICES, namespace, name)
    if service is None:
        raise NoEndpoint(f'service "{name}" not found')
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return spec["externalName"], number
    port = next((p for p in spec.get("ports") or () if p["port"] == number), None)
    if port is None:
        raise NoEndpoint(f'no service port {number} found for service "{name}"')
    found: list[tuple[str, int]] = []
    for one in api.list(_SLICES, namespace):
        if (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == name:
            found += _ready(one, port.get("name") or "")
    if found:
        return random.choice(found)
    if only_endpoints or (spec.get("clusterIP") or "None") == "None":
        raise NoEndpoint(f'no endpoints available for service "{name}"')
    return spec["clusterIP"], number


def _ready(one: Obj, port_name: str) -> list[tuple[str, int]]:
    number = next((p.get("port") for p in one.get("ports") or () if (p.get("name") or "") == port_name), None)
    if number is None:
        return []
    return [
        (address, number)
        for e in one.get("endpoints") or ()
        if (e.get("conditions") or {}).get("ready") is not False
        for address in e.get("addresses") or ()
    ]
