"""Requests for groups that another server serves, passed on to it under this server's own certificate.

An APIService with a service takes its group version over, also from what is served here. The user goes along in
`X-Remote-*` headers, which the other server believes because of the front-proxy certificate.

Source: k8s.io/kube-aggregator pkg/apiserver (handler_proxy.go, handler_discovery.go).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from berg.apiserver.aggregation.priorities import Priorities, ordered
from berg.apiserver.http.message import Request, Response, User
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEvent

if TYPE_CHECKING:
    from berg.apiserver.http.forward import Target
    from berg.apiserver.openapi.publish import Document
    from berg.apiserver.server import APIServer

log = logging.getLogger(__name__)

CHECK_S = 30.0
RETRY_S = 2.0


@dataclass(slots=True)
class Remote:
    """One group version that another server serves."""

    name: str
    spec: Obj
    tls: ssl.SSLContext
    available: bool = False
    resources: list[Obj] = field(default_factory=list)
    """as aggregated discovery lists them; the last that it said"""
    v3: dict[str, Document] = field(default_factory=dict)
    """group or group version path → its OpenAPI v3 document"""
    v2: Obj | None = None
    """its part of the OpenAPI v2 document"""
    v2_tag: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """set when something that it depends on has changed"""

    @property
    def group_version(self) -> tuple[str, str]:
        return self.spec["group"], self.spec["version"]

    @property
    def host(self) -> str:
        service = self.spec["service"]
        return f"{service['name']}.{service['namespace']}.svc"


class Aggregator:
    def __init__(self, server: APIServer) -> None:
        self._server = server
        self.services = server.services
        self.registry = server.services.registry(resource("apiservices.apiregistration.k8s.io"))
        self.remotes: dict[tuple[str, str], Remote] = {}
        self.priorities: dict[tuple[str, str], Priorities] = {}
        """group version → what its APIService says"""

    async def start(self) -> None:
        self.registry.subscribe(self._changed)
        for obj in self.services.list(self.registry.storage):
            self._install(obj)
        self._server.discovery.storage = self.services.storage_of
        self._server.discovery.remote = self._discovery
        self._server.discovery.order = lambda listed, aggregated: ordered(
            listed, self.priorities, aggregated=aggregated
        )
        self._server.openapi.remote = self._openapi
        self._server.openapi.remote_v2 = lambda: [r.v2 for r in self.remotes.values() if r.v2 is not None]
        for name in ("services", "endpointslices.discovery.k8s.io"):
            self.services.registry(resource(name)).subscribe(self._service_changed)

    def _changed(self, events: Sequence[CacheEvent]) -> None:
        for event in events:
            if event.entry is None:
                continue
            if event.type == "DELETED":
                spec = event.entry.obj["spec"]
                self.priorities.pop((spec.get("group") or "", spec["version"]), None)
                self._uninstall(event.entry.name)
                self._server.discovery.changed()
            else:
                self._install(event.entry.obj)

    def _service_changed(self, events: Sequence[CacheEvent]) -> None:
        if not self.remotes:
            return
        for event in events:
            if event.entry is None:
                continue
            name = event.entry.labels.get("kubernetes.io/service-name") or event.entry.name
            for remote in self.remotes.values():
                service = remote.spec["service"]
                if (service["namespace"], service["name"]) == (event.entry.namespace, name):
                    remote.wake.set()

    def _install(self, obj: Obj) -> None:
        name, spec = obj["metadata"]["name"], obj["spec"]
        place = (spec.get("group") or "", spec["version"])
        said = (spec["groupPriorityMinimum"], spec["versionPriority"])
        if self.priorities.get(place) != said:
            self.priorities[place] = said
            self._server.discovery.changed()
        known = next((r for r in self.remotes.values() if r.name == name), None)
        if known is not None and known.spec == spec:
            return
        self._uninstall(name)
        if not spec.get("service"):
            return
        try:
            tls = self._tls(spec)
        except (ssl.SSLError, ValueError, OSError) as e:
            log.warning("APIService %s: %s", name, e)
            return
        remote = Remote(name, spec, tls)
        self.remotes[remote.group_version] = remote
        self._server.surface_changed()
        self._server.spawn(self._watch_over(remote))

    def _uninstall(self, name: str) -> None:
        for key, remote in list(self.remotes.items()):
            if remote.name == name:
                del self.remotes[key]
                self._server.surface_changed()

    def _tls(self, spec: Obj) -> ssl.SSLContext:
        from berg.apiserver.http.forward import client_tls

        config = self.services.config
        cert, key = config.proxy_client_cert_file, config.proxy_client_key_file
        if spec.get("insecureSkipTLSVerify"):
            return client_tls("", cert, key)
        return client_tls("", cert, key, ca_data=base64.b64decode(spec.get("caBundle") or ""))

    # ---- passing on

    def remote_of(self, request: Request) -> Remote | None:
        if not self.remotes:
            return None
        parts = request.path.split("/", 4)
        if len(parts) < 4 or parts[1] != "apis":
            return None
        return self.remotes.get((parts[2], parts[3]))

    async def handle(self, request: Request, remote: Remote) -> Response:
        from berg.apiserver.http.forward import Unreachable, forward

        if not remote.available:
            return _plain_503("service unavailable")
        assert request.user is not None
        try:
            target = await self.target(remote, request.path, request.raw_query)
        except ApiError as e:
            log.warning("resolving the service of APIService %s: %s", remote.name, e.message)
            return _plain_503("service unavailable")
        tracing, headers = self.services.tracing, _identity(request.user)
        try:
            if tracing is None or "upgrade" in request.headers:
                return await forward(request, target, headers)
            with tracing.span(f"HTTP {request.method}", client=True):
                return await forward(request, target, {**headers, **tracing.headers()})
        except Unreachable as e:
            return _plain_503(f"error trying to reach service: {e}")

    async def target(self, remote: Remote, path: str, query: str = "") -> Target:
        from berg.apiserver.http.forward import Target
        from berg.apiserver.http.hooks import resolve

        service = remote.spec["service"]
        host, port = await resolve(self.services, service["namespace"], service["name"], service.get("port") or 443)
        return Target(host, port, path, query, remote.tls, remote.host)

    async def ask(self, remote: Remote, path: str, query: str = "", *, tag: str = "") -> Response:
        """A question of this server's own. `tag`: of what is known already. Raises ApiError, Unreachable."""
        from berg.apiserver.http.forward import forward

        target = await self.target(remote, path, query)
        user = User("system:kube-aggregator", groups=("system:masters",))
        headers = {"accept": "application/json", **({"if-none-match": tag} if tag else {})}
        response = await forward(Request("GET", path, headers=headers), target, _identity(user))
        if response.stream is not None:
            response.body += b"".join([chunk async for chunk in response.stream])
            response.stream = None
        return response

    # ---- looking after them

    async def _watch_over(self, remote: Remote) -> None:
        from berg.apiserver.aggregation import availability
        from berg.apiserver.aggregation.learning import learn

        while self.remotes.get(remote.group_version) is remote:
            condition = await availability.check(self, remote)
            was = remote.available
            remote.available = condition["status"] == "True"
            changed = remote.available and await learn(self, remote)
            if changed or was != remote.available:
                self._server.surface_changed()
            try:
                await availability.write(self, remote.name, condition)
            except ApiError as e:
                if e.code == 404:
                    return
                log.warning("APIService %s: %s", remote.name, e)
            await self._pause(remote, CHECK_S if remote.available else RETRY_S)

    async def _pause(self, remote: Remote, seconds: float) -> None:
        waits = [asyncio.ensure_future(self.services.clock.sleep(seconds)), asyncio.ensure_future(remote.wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        remote.wake.clear()

    def _discovery(self) -> dict[str, dict[str, tuple[list[Obj], bool]]]:
        found: dict[str, dict[str, tuple[list[Obj], bool]]] = {}
        for (group, version), remote in self.remotes.items():
            found.setdefault(group, {})[version] = (remote.resources, remote.available)
        return found

    def _openapi(self) -> dict[str, Document]:
        return {name: document for remote in self.remotes.values() for name, document in remote.v3.items()}


def _plain_503(text: str) -> Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(503, f"{text}\n".encode(), "text/plain; charset=utf-8", headers)


def _identity(user: User) -> dict[str, str]:
    headers = {"X-Remote-User": _one_line(user.name)}
    if user.uid:
        headers["X-Remote-Uid"] = _one_line(user.uid)
    if user.groups:
        headers["X-Remote-Group"] = "\n".join(map(_one_line, user.groups))
    for key, values in user.extra.items():
        headers[f"X-Remote-Extra-{quote(key, safe='')}"] = "\n".join(map(_one_line, values))
    return headers


def _one_line(value: str) -> str:
    """No name can smuggle in another header, or another group."""
    return value.replace("\r", " ").replace("\n", " ")
