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

import orjson

from berg.apiserver.http.message import Request, Response, User
from berg.machinery import status
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEvent

if TYPE_CHECKING:
    from berg.apiserver.http.forward import Target
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
    resources: list[Obj] | None = None
    """as aggregated discovery lists them; None while it does not answer"""
    openapi: bytes = b""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

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

    async def start(self) -> None:
        self.registry.subscribe(self._changed)
        for obj in self.services.list(self.registry.storage):
            self._install(obj)
        self._server.discovery.remote = self._discovery
        self._server.openapi.remote = self._openapi

    def _changed(self, events: Sequence[CacheEvent]) -> None:
        for event in events:
            if event.entry is None:
                continue
            if event.type == "DELETED":
                self._uninstall(event.entry.name)
            else:
                self._install(event.entry.obj)

    def _install(self, obj: Obj) -> None:
        name, spec = obj["metadata"]["name"], obj["spec"]
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
            return Response(503, b"service unavailable\n", "text/plain; charset=utf-8")
        assert request.user is not None
        try:
            target = await self.target(remote, request.path, request.raw_query)
            return await forward(request, target, _identity(request.user))
        except Unreachable as e:
            raise status.service_unavailable(f"error trying to reach service: {e}") from None

    async def target(self, remote: Remote, path: str, query: str = "") -> Target:
        from berg.apiserver.http.forward import Target
        from berg.apiserver.http.hooks import resolve

        service = remote.spec["service"]
        host, port = await resolve(self.services, service["namespace"], service["name"], service.get("port") or 443)
        return Target(host, port, path, query, remote.tls, remote.host)

    async def ask(self, remote: Remote, path: str, accept: str = "application/json") -> Response:
        """A question of this server's own. Raises ApiError, Unreachable."""
        from berg.apiserver.http.forward import forward

        target = await self.target(remote, path)
        user = User("system:kube-aggregator", groups=("system:masters",))
        response = await forward(Request("GET", path, headers={"accept": accept}), target, _identity(user))
        if response.stream is not None:
            response.body += b"".join([chunk async for chunk in response.stream])
            response.stream = None
        return response

    # ---- looking after them

    async def _watch_over(self, remote: Remote) -> None:
        from berg.apiserver.aggregation import availability

        while self.remotes.get(remote.group_version) is remote:
            condition = await availability.check(self, remote)
            was = remote.available
            remote.available = condition["status"] == "True"
            if remote.available:
                await self._learn(remote)
            if was != remote.available:
                self._server.surface_changed()
            try:
                await availability.write(self, remote.name, condition)
            except ApiError as e:
                if e.code == 404:
                    return
                log.warning("APIService %s: %s", remote.name, e)
            await self.services.clock.sleep(CHECK_S if remote.available else RETRY_S)

    async def _learn(self, remote: Remote) -> None:
        from berg.apiserver.http.forward import Unreachable

        group, version = remote.group_version
        try:
            answer = await self.ask(remote, f"/apis/{group}/{version}")
            listed = orjson.loads(answer.body).get("resources") or []
            fresh = _aggregated(group, version, listed)
            document = await self.ask(remote, f"/openapi/v3/apis/{group}/{version}")
        except (ApiError, Unreachable, ValueError):
            return
        if document.status == 200 and document.body != remote.openapi:
            remote.openapi = document.body
        if fresh != remote.resources:
            remote.resources = fresh
            self._server.surface_changed()

    def _discovery(self) -> dict[str, dict[str, list[Obj] | None]]:
        found: dict[str, dict[str, list[Obj] | None]] = {}
        for (group, version), remote in self.remotes.items():
            found.setdefault(group, {})[version] = remote.resources if remote.available else None
        return found

    def _openapi(self) -> dict[str, bytes]:
        return {f"apis/{g}/{v}": r.openapi for (g, v), r in self.remotes.items() if r.openapi}


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


def _aggregated(group: str, version: str, listed: list[Obj]) -> list[Obj]:
    """An APIResourceList's resources as aggregated discovery shows them."""
    found: dict[str, Obj] = {}
    for r in listed:
        name, _, sub = r["name"].partition("/")
        kind = {"group": r.get("group") or group, "version": r.get("version") or version, "kind": r["kind"]}
        if sub:
            parent = found.setdefault(name, {"resource": name, "verbs": []})
            shown = {"subresource": sub, "responseKind": kind, "verbs": r.get("verbs") or []}
            parent.setdefault("subresources", []).append(shown)
            continue
        one = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if r.get("namespaced") else "Cluster",
            "singularResource": r.get("singularName") or r["kind"].lower(),
            "verbs": r.get("verbs") or [],
        }
        for field_ in ("shortNames", "categories"):
            if r.get(field_):
                one[field_] = r[field_]
        found[name] = {**one, **{k: v for k, v in found.get(name, {}).items() if k == "subresources"}}
    return list(found.values())
