"""What the server serves: every group, version and resource, custom and aggregated ones too.

Source: KEP-3352 (aggregated discovery, apidiscovery.k8s.io/v2), and the older per-group documents as fall-back.
"""

from __future__ import annotations

import asyncio

import orjson

from berg.client.rest import Client
from berg.machinery.resources import Resource, Subresource
from berg.machinery.status import ApiError, Obj

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Discovered:
    """`resources` are those of all versions, in the server's order of preference; `failed` are group/versions
    whose server did not answer: what they have is not known, which is not the same as nothing."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.failed: set[str] = set()

    def preferred(self) -> list[Resource]:
        """Each resource once, in its most preferred version."""
        found: dict[tuple[str, str], Resource] = {}
        for r in self.resources:
            found.setdefault((r.group, r.plural), r)
        return list(found.values())

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        for r in self.resources:
            if r.kind == kind and r.api_version == api_version:
                return r
        return None

    def by_group_kind(self, group: str, kind: str) -> Resource | None:
        for r in self.resources:
            if r.kind == kind and r.group == group:
                return r
        return None


async def discover(client: Client) -> Discovered:
    """Raises ApiError when the server does not answer at all."""
    found = Discovered()
    headers = {"Accept": f"{AGGREGATED},application/json"}
    core, groups = await asyncio.gather(
        client.request("GET", "/api", headers=headers), client.request("GET", "/apis", headers=headers)
    )
    for data in (core, groups):
        document = orjson.loads(data)
        if document.get("kind") == "APIGroupDiscoveryList":
            _read_aggregated(document, found)
        else:
            await _read_legacy(client, document, found)
    return found


def _read_aggregated(document: Obj, found: Discovered) -> None:
    for group in document.get("items") or []:
        name = group["metadata"].get("name", "")
        for version in group.get("versions") or []:
            v = version["version"]
            if version.get("freshness") == "Stale":
                found.failed.add(f"{name}/{v}" if name else v)
            for entry in version.get("resources") or []:
                found.resources.append(_resource(name, v, entry))


def _resource(group: str, version: str, entry: Obj) -> Resource:
    kind = entry.get("responseKind") or {}
    subs: dict[str, Subresource] = {}
    for sub in entry.get("subresources") or []:
        sk = sub.get("responseKind") or {}
        subs[sub["subresource"]] = Subresource(
            sub["subresource"],
            sk.get("group") or group,
            sk.get("version") or version,
            sk.get("kind", ""),
            tuple(sub.get("verbs") or ()),
        )
    return Resource(
        group=group,
        version=version,
        plural=entry["resource"],
        kind=kind.get("kind", ""),
        namespaced=entry.get("scope") == "Namespaced",
        singular=entry.get("singularResource", ""),
        verbs=tuple(entry.get("verbs") or ()),
        short_names=tuple(entry.get("shortNames") or ()),
        categories=tuple(entry.get("categories") or ()),
        subresources=subs,
    )


async def _read_legacy(client: Client, document: Obj, found: Discovered) -> None:
    if document.get("kind") == "APIVersions":
        versions = [("", v, f"/api/{v}") for v in document.get("versions") or []]
    else:
        versions = []
        for group in document.get("groups") or []:
            preferred = (group.get("preferredVersion") or {}).get("version")
            names = [v["version"] for v in group.get("versions") or []]
            names.sort(key=lambda v, p=preferred: v != p)  # type: ignore[misc]
            versions += [(group["name"], v, f"/apis/{group['name']}/{v}") for v in names]
    answers = await asyncio.gather(*(client.request("GET", p) for _, _, p in versions), return_exceptions=True)
    for (group, version, _), data in zip(versions, answers, strict=True):
        if isinstance(data, ApiError):
            found.failed.add(f"{group}/{version}" if group else version)
        elif isinstance(data, BaseException):
            raise data
        else:
            _read_legacy_version(group, version, orjson.loads(data), found)


def _read_legacy_version(group: str, version: str, document: Obj, found: Discovered) -> None:
    entries: list[Obj] = document.get("resources") or []
    for entry in entries:
        if "/" in entry["name"]:
            continue
        subs = {
            s["name"].partition("/")[2]: Subresource(
                s["name"].partition("/")[2],
                s.get("group") or group,
                s.get("version") or version,
                s["kind"],
                tuple(s.get("verbs") or ()),
            )
            for s in entries
            if s["name"].startswith(f"{entry['name']}/")
        }
        found.resources.append(
            Resource(
                group=group,
                version=version,
                plural=entry["name"],
                kind=entry["kind"],
                namespaced=bool(entry.get("namespaced")),
                singular=entry.get("singularName", ""),
                verbs=tuple(entry.get("verbs") or ()),
                short_names=tuple(entry.get("shortNames") or ()),
                categories=tuple(entry.get("categories") or ()),
                subresources=subs,
            )
        )
