"""Discovery: what this server serves, in the two shapes that clients read it in.

The documents are made from the one table of resources at first request and kept as bytes until the table changes
(`changed()`), each with its ETag.

Source: k8s.io/apiserver pkg/endpoints/discovery, KEP-3352 (aggregated discovery).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import orjson

from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.negotiation import PLAIN, PROTOBUF, compress, encode, negotiate, parse_accept
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


class Discovery:
    """`resources` gives everything served, groups and versions in order of preference. `remote` gives what
    aggregated servers serve: {group: {version: (their resources, whether that is so now)}}."""

    def __init__(self, resources: Callable[[], list[Resource]], address: Callable[[], str]) -> None:
        self._resources = resources
        self._address = address
        self.remote: Callable[[], dict[str, dict[str, tuple[list[Obj], bool]]]] = dict
        self.order: Callable[[str], int] | None = None
        self._documents: dict[str, tuple[bytes, str]] = {}

    def changed(self) -> None:
        self._documents.clear()

    def handle(self, request: Request) -> Response | None:
        """None when the path is none of discovery's, or names no group or version."""
        path = request.path.rstrip("/")
        parts = path.split("/")[1:]
        if parts[0] not in ("api", "apis") or len(parts) > 3 or (parts[0] == "api" and len(parts) > 2):
            return None
        if len(parts) == 1:
            version = _aggregated(request)
            if version:
                return self._answer(
                    request,
                    f"{path}#{version}",
                    lambda: self._aggregated_list(parts[0] == "api", version),
                    AGGREGATED.format(version),
                )
        if path == "/api":
            return self._answer(request, path, self._core_versions)
        if path == "/apis":
            return self._answer(request, path, self._group_list)
        if parts[0] == "api":
            return self._known(request, path, "", parts[1])
        if len(parts) == 2:
            group = self._groups().get(parts[1])
            if group is None:
                return None
            return self._answer(request, path, lambda: self._group(parts[1], group, top=True))
        return self._known(request, path, parts[1], parts[2])

    def _known(self, request: Request, path: str, group: str, version: str) -> Response | None:
        found = [r for r in self._resources() if r.group == group and r.version == version]
        if not found:
            return None
        return self._answer(request, path, lambda: _resource_list(group, version, found))

    def _answer(self, request: Request, name: str, make: Callable[[], Obj], content_type: str = "") -> Response:
        """`content_type`: of an aggregated document, which is JSON; the others are in what encoding is asked for.
        Raises NotAcceptable."""
        accepted = PLAIN if content_type else negotiate(request)
        if accepted is not PLAIN:
            name = f"{name}|{accepted.media_type}|{accepted.pretty}"
        found = self._documents.get(name)
        if found is None:
            made = make()
            if accepted.media_type == PROTOBUF:
                made.setdefault("apiVersion", "v1")  # which some leave out in JSON
            body = orjson.dumps(made) if accepted is PLAIN else encode(made, accepted)
            found = self._documents[name] = (body, f'"{hashlib.sha512(body).hexdigest().upper()}"')
        body, etag = found
        headers = {}
        if content_type:
            headers["Vary"] = "Accept"
            headers["ETag"] = etag
            headers["Cache-Control"] = "public"
            if request.headers.get("if-none-match") == etag:
                return Response(304, b"", "", headers)
        response = Response(200, body, content_type or accepted.media_type, headers)
        compress(request, response)
        return response

    def paths(self) -> set[str]:
        """Those of all groups and group versions, as `/` lists them."""
        groups = self._groups().items()
        return {f"/apis/{g}/{v}" if g else f"/api/{v}" for g, versions in groups for v in versions} | {
            f"/apis/{g}" for g, _ in groups if g
        }

    # ---- documents

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for r in self._resources():
            versions = groups.setdefault(r.group, [])
            if r.version not in versions:
                versions.append(r.version)
        for group, remote in self.remote().items():
            versions = groups.setdefault(group, [])
            versions.extend(v for v in remote if v not in versions)
        if self.order is not None:
            order = self.order
            return dict(sorted(groups.items(), key=lambda g: order(g[0])))
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

    def _aggregated_list(self, core: bool, version: str) -> Obj:
        items = []
        everything = self._resources()
        remote = self.remote()
        for group, versions in self._groups().items():
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
                    one["resources"] = [
                        _aggregated_resource(r) for r in everything if r.group == group and r.version == v
                    ]
                    one["freshness"] = "Current"
                shown.append(one)
            items.append({"metadata": {"name": group} if group else {}, "versions": shown})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }


def _aggregated(request: Request) -> str:
    """The version of aggregated discovery that the client prefers; "" for the old documents."""
    for media, params in parse_accept(request.headers.get("accept", "")):
        if params.get("as") == "APIGroupDiscoveryList" and params.get("g") == "apidiscovery.k8s.io":
            if params.get("v") in ("v2", "v2beta1") and media == "application/json":
                return params["v"]
        elif media in ("application/json", "*/*", "application/yaml") and not params.get("as"):
            return ""
    return ""


def _resource_list(group: str, version: str, resources: list[Resource]) -> Obj:
    listed: list[Obj] = []
    for r in sorted(resources, key=lambda r: r.plural):
        listed.append(_resource(r))
        for sub in sorted(r.subresources.values(), key=lambda s: s.name):
            one: Obj = {
                "name": f"{r.plural}/{sub.name}",
                "singularName": "",
                "namespaced": r.namespaced,
                "kind": sub.kind,
                "verbs": list(sub.verbs),
            }
            if (sub.group, sub.version) != (r.group, r.version):
                one["group"], one["version"] = sub.group, sub.version
            listed.append(one)
    return {
        "kind": "APIResourceList",
        **({"apiVersion": "v1"} if group else {}),  # upstream's core list has none
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }


def _resource(r: Resource) -> Obj:
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
    if "list" in r.verbs:
        digest = hashlib.sha256(f"{r.group}/{r.version}/{r.kind}".encode()).digest()
        found["storageVersionHash"] = base64.b64encode(digest[:8]).decode()
    return found


def _aggregated_resource(r: Resource) -> Obj:
    """Kinds of the group version itself are named without it, as upstream does."""
    found: Obj = {
        "resource": r.plural,
        "responseKind": {"group": "", "version": "", "kind": r.kind},
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
                "responseKind": {"group": "", "version": "", "kind": s.kind}
                if (s.group, s.version) == (r.group, r.version)
                else {"group": s.group, "version": s.version, "kind": s.kind},
                "verbs": list(s.verbs),
            }
            for s in sorted(r.subresources.values(), key=lambda s: s.name)
        ]
    return found
