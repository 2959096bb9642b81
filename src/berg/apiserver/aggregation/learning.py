"""What an aggregated server serves: its resources for discovery, its OpenAPI for ours.

What cannot be had stays as it was known last. A server that has no OpenAPI v3 is shown by its v2.

Source: k8s.io/kube-aggregator pkg/controllers/{openapi,openapiv3}, pkg/apiserver/handler_discovery.go.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import orjson

from berg.apiserver.aggregation import specs
from berg.apiserver.http.forward import Unreachable
from berg.apiserver.openapi.publish import Document
from berg.machinery.status import ApiError, Obj

if TYPE_CHECKING:
    from berg.apiserver.aggregation.aggregator import Aggregator, Remote

log = logging.getLogger(__name__)


async def learn(aggregator: Aggregator, remote: Remote) -> bool:
    """Whether anything is different from what was known."""
    changed = False
    for lesson in (_resources, _openapi_v3, _openapi_v2):
        try:
            changed |= await lesson(aggregator, remote)
        except (ApiError, Unreachable, ValueError, KeyError, TypeError, AttributeError) as e:
            log.info("APIService %s: %s: %s", remote.name, lesson.__name__.strip("_"), e)
    return changed


async def _resources(aggregator: Aggregator, remote: Remote) -> bool:
    group, version = remote.group_version
    answer = await aggregator.ask(remote, f"/apis/{group}/{version}")
    was, remote.resources = remote.resources, aggregated(orjson.loads(answer.body)["resources"])
    return was != remote.resources


async def _openapi_v3(aggregator: Aggregator, remote: Remote) -> bool:
    group, version = remote.group_version
    answer = await aggregator.ask(remote, "/openapi/v3")
    if answer.status != 200:
        return False
    listed: dict[str, Obj] = orjson.loads(answer.body)["paths"]
    found: dict[str, Document] = {}
    for name in (f"apis/{group}", f"apis/{group}/{version}"):
        if name not in listed:
            continue
        url = listed[name]["serverRelativeURL"]
        known = remote.v3.get(name)
        if known is None or known.url != url:
            path, _, query = url.partition("?")
            given = await aggregator.ask(remote, path, query)
            if given.status != 200:
                continue
            known = Document(url, given.body)
        found[name] = known
    was, remote.v3 = remote.v3, found
    return was != found


async def _openapi_v2(aggregator: Aggregator, remote: Remote) -> bool:
    answer = await aggregator.ask(remote, "/openapi/v2", tag=remote.v2_tag)
    if answer.status != 200:
        return False
    document: Obj = orjson.loads(answer.body)
    remote.v2_tag = next((v for k, v in answer.headers.items() if k.lower() == "etag"), "")
    group, version = remote.group_version
    was, remote.v2 = remote.v2, specs.filtered(document, f"/apis/{group}/{version}/")
    name = f"apis/{group}/{version}"
    if name not in remote.v3:
        body = orjson.dumps(specs.to_v3({"info": document.get("info"), **remote.v2}))
        digest = hashlib.sha512(body).hexdigest().upper()
        remote.v3 = {**remote.v3, name: Document(f"/openapi/v3/{name}?hash={digest}", body)}
    return was != remote.v2


def aggregated(listed: list[Obj]) -> list[Obj]:
    """An APIResourceList's resources as aggregated discovery shows them."""
    found: dict[str, Obj] = {}
    for r in listed:
        name, _, sub = r["name"].partition("/")
        kind = {"group": r.get("group") or "", "version": r.get("version") or "", "kind": r["kind"]}
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
        for field in ("shortNames", "categories"):
            if r.get(field):
                one[field] = r[field]
        found[name] = {**one, **{k: v for k, v in found.get(name, {}).items() if k == "subresources"}}
    return list(found.values())
