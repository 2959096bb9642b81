"""Discovery: what this server serves, in the two shapes that clients read it in.

The documents are made from the one table of resources at first request and kept as bytes until the table changes
(`changed()`), each with its ETag.

Source: k8s.io/apiserver pkg/endpoints/discovery, KEP-3352 (aggregated discovery).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.negotiation import (
    MEDIA_TYPES,
    PROTOBUF,
    Accepted,
    compress,
    encode,
    negotiate,
    parse_accept,
)
from berg.machinery import bundle, status
from berg.machinery.resources import Resource, Subresource
from berg.machinery.status import ApiError, Obj

_AS = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
AGGREGATED = f"application/json{_AS}"


class Discovery:
    """`resources` gives everything served, groups and versions in order of preference. `remote` gives what
    aggregated servers serve: {group: {version: (their resources, whether that is so now)}}."""

    def __init__(self, resources: Callable[[], list[Resource]], address: Callable[[], str]) -> None:
        self._resources = resources
        self._address = address
        self.remote: Callable[[], dict[str, dict[str, tuple[list[Obj], bool]]]] = dict
        self.order: Callable[[list[tuple[str, str]], bool], dict[str, list[str]]] | None = None
        """of the group versions that are served, for aggregated documents or not: groups and their versions, most
        preferred first"""
        self.storage: Callable[[Resource], Resource | None] = lambda r: r
        """the resource in the version that it is stored in; None when it is not stored"""
        self._documents: dict[str, tuple[bytes, str]] = {}
        self._listed: dict[bool, dict[str, list[str]]] = {}

    def changed(self) -> None:
        self._documents.clear()
        self._listed.clear()

    def handle(self, request: Request) -> Response | None:
        """None when the path is none of discovery's, or names no group or version."""
        path = request.path.rstrip("/")
        parts = path.split("/")[1:]
        if parts[0] not in ("api", "apis") or len(parts) > 3 or (parts[0] == "api" and len(parts) > 2):
            return None
        if len(parts) == 1:
            media = _aggregated(request)
            if media:
                return self._answer(request, path, lambda: self._aggregated_list(parts[0] == "api"), media)
        if path == "/api":
            return self._answer(request, path, self._core_versions)
        if path == "/apis":
            return self._answer(request, path, self._group_list, passed_on=True)
        if parts[0] == "api":
            return self._known(request, path, "", parts[1])
        if len(parts) == 2:
            group = self._groups().get(parts[1])
            if group is None:
                return None
            aggregators = parts[1] != "apiregistration.k8s.io"
            return self._answer(request, path, lambda: self._group(parts[1], group, top=True), passed_on=aggregators)
        return self._known(request, path, parts[1], parts[2])

    def _known(self, request: Request, path: str, group: str, version: str) -> Response | None:
        found = [r for r in self._resources() if r.group == group and r.version == version]
        if not found:
            return None
        custom = _custom(found[0])
        return self._answer(request, path, lambda: self._resource_list(group, version, found), passed_on=custom)

    def _answer(
        self,
        request: Request,
        name: str,
        make: Callable[[], Obj],
        aggregated: str = "",
        *,
        passed_on: bool = False,
    ) -> Response:
        """`aggregated`: the media type of an aggregated document. `passed_on`: not what upstream's router answers, but
        the aggregator or the server of custom resources; they refuse in other words. Raises NotAcceptable."""
        if aggregated:
            accepted = Accepted(aggregated)
        else:
            try:
                accepted = negotiate(request)
            except ApiError:
                if not passed_on:
                    raise
                raise status.not_acceptable(MEDIA_TYPES) from None
        name = f"{name}|{bool(aggregated)}|{accepted.media_type}|{accepted.pretty}"
        found = self._documents.get(name)
        if found is None:
            body = _encoded(make(), accepted)
            found = self._documents[name] = (body, f'"{hashlib.sha512(body).hexdigest().upper()}"')
        body, etag = found
        headers = {}
        if aggregated:
            headers["Vary"] = "Accept"
            headers["ETag"] = etag
            headers["Cache-Control"] = "public"
            if request.headers.get("if-none-match") == etag:
                return Response(304, b"", "", headers)
        response = Response(200, body, accepted.media_type + (_AS if aggregated else ""), headers)
        compress(request, response)
        return response

    def paths(self) -> set[str]:
        """Those of all groups and group versions, as `/` lists them."""
        groups = self._groups().items()
        return {f"/apis/{g}/{v}" if g else f"/api/{v}" for g, versions in groups for v in versions} | {
            f"/apis/{g}" for g, _ in groups if g
        }

    # ---- documents

    def _groups(self, *, aggregated: bool = False) -> dict[str, list[str]]:
        """Group → its versions, both in order."""
        found = self._listed.get(aggregated)
        if found is None:
            found = self._listed[aggregated] = self._in_order(aggregated)
        return found

    def _in_order(self, aggregated: bool) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for r in self._resources():
            versions = groups.setdefault(r.group, [])
            if r.version not in versions:
                versions.append(r.version)
        for group, remote in self.remote().items():
            versions = groups.setdefault(group, [])
            versions.extend(v for v in remote if v not in versions)
        if self.order is not None:
            listed = [(group, version) for group, versions in groups.items() for version in versions]
            return self.order(listed, aggregated)
        return groups

    def _core_versions(self) -> Obj:
        return {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address()}],
        }

    def _group_list(self) -> Obj:
        groups = [self._group(name, versions) for name, versions in self._groups().items() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _group(self, name: str, versions: list[str], *, top: bool = False) -> Obj:
        named = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
        head: Obj = {"kind": "APIGroup", "apiVersion": "v1"} if top else {}
        return {**head, "name": name, "versions": named, "preferredVersion": named[0]}

    def _aggregated_list(self, core: bool) -> Obj:
        items = []
        everything = self._resources()
        remote = self.remote()
        for group, versions in self._groups(aggregated=True).items():
            if (group == "") != core:
                continue
            shown = []
            for v in versions:
                one: Obj = {"version": v}
                away = remote.get(group, {})
                if v in away:
                    one["resources"], current = away[v]
                    one["freshness"] = "Current" if current else "Stale"
                else:
                    own = sorted((r for r in everything if (r.group, r.version) == (group, v)), key=lambda r: r.plural)
                    one["resources"] = [_aggregated_resource(r) for r in own]
                    one["freshness"] = "Current"
                shown.append(one)
            items.append({"metadata": {"name": group} if group else {}, "versions": shown})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        }

    def _resource_list(self, group: str, version: str, resources: list[Resource]) -> Obj:
        listed: list[Obj] = []
        for r in sorted(resources, key=lambda r: r.plural):
            listed.append(self._resource(r))
            for sub in _subresources(r):
                one: Obj = {"name": f"{r.plural}/{sub.name}", "singularName": "", "namespaced": r.namespaced}
                if (sub.group, sub.version) != (r.group, r.version):
                    one |= {"group": sub.group, "version": sub.version}
                one |= {"kind": sub.kind, "verbs": list(sub.verbs)}
                listed.append(one)
        return {
            "kind": "APIResourceList",
            **({"apiVersion": "v1"} if group else {}),  # upstream's core list has none
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": listed,
        }

    def _resource(self, r: Resource) -> Obj:
        found: Obj = {
            "name": r.plural,
            "singularName": r.singular or r.kind.lower(),
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
        }
        if r.short_names:
            found["shortNames"] = list(r.short_names)
        if r.categories:
            found["categories"] = list(r.categories)
        stored = self.storage(r)
        if stored is not None and "watch" in r.verbs:
            digest = hashlib.sha256(f"{stored.group}/{stored.version}/{stored.kind}".encode()).digest()
            found["storageVersionHash"] = base64.b64encode(digest[:8]).decode()
        return found


def _encoded(made: Obj, accepted: Accepted) -> bytes:
    if accepted.media_type != PROTOBUF or "apiVersion" in made:
        return encode(made, accepted)
    from berg.machinery.codec import protobuf
    from berg.machinery.schema import type_of

    return protobuf.dumps(made, type_of("", "v1", made["kind"]))  # two have no version, for clients of old


def _aggregated(request: Request) -> str:
    """The media type in which the client prefers aggregated discovery; "" for the old documents."""
    for media, params in parse_accept(request.headers.get("accept", "")):
        if params.get("as") == "APIGroupDiscoveryList" and params.get("g") == "apidiscovery.k8s.io":
            if params.get("v") == "v2" and media in MEDIA_TYPES:
                return media
        elif media in (*MEDIA_TYPES, "*/*") and not params.get("as"):
            return ""
    return ""


def _aggregated_resource(r: Resource) -> Obj:
    """Built-in kinds of the group version itself are named without it, as upstream does."""
    here = {"group": r.group, "version": r.version} if _custom(r) else {"group": "", "version": ""}
    found: Obj = {
        "resource": r.plural,
        "responseKind": {**here, "kind": r.kind},
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular or r.kind.lower(),
        "verbs": list(r.verbs),
    }
    if r.short_names:
        found["shortNames"] = list(r.short_names)
    if r.categories:
        found["categories"] = list(r.categories)
    if r.subresources:
        found["subresources"] = [
            {
                "subresource": s.name,
                "responseKind": {**here, "kind": s.kind}
                if (s.group, s.version) == (r.group, r.version)
                else {"group": s.group, "version": s.version, "kind": s.kind},
                "verbs": list(s.verbs),
            }
            for s in _subresources(r)
        ]
    return found


def _custom(r: Resource) -> bool:
    return (r.group, r.version, r.kind) not in bundle.kind_index()


def _subresources(r: Resource) -> list[Subresource]:
    found = list(r.subresources.values())
    return found if _custom(r) else sorted(found, key=lambda s: s.name)
