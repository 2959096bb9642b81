"""The default roles and bindings: created when missing, given back what they lost, and aggregated.

A role or binding whose annotation `rbac.authorization.kubernetes.io/autoupdate` is not "true" is left as it is.

Source: kubernetes pkg/registry/rbac/rest/storage_rbac.go, pkg/registry/rbac/reconciliation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files

import orjson

from berg.apiserver.auth.rbac import Rule, uncovered
from berg.apiserver.hooks import gated_roles
from berg.apiserver.hooks.objects import ensure
from berg.apiserver.registry.services import Services
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_PLURALS = {
    "cluster-roles": "clusterroles",
    "controller-roles": "clusterroles",
    "cluster-role-bindings": "clusterrolebindings",
    "controller-role-bindings": "clusterrolebindings",
    "namespace-roles": "roles",
    "namespace-role-bindings": "rolebindings",
}


def _policy(enabled: Callable[[str], bool]) -> list[tuple[Resource, Obj]]:
    packed = orjson.loads((files("berg.apiserver") / "data" / "rbac.json").read_bytes())
    for obj in gated_roles.gated(enabled):
        packed["cluster-roles" if obj["kind"] == "ClusterRole" else "cluster-role-bindings"].append(obj)
    node = next(r for r in packed["cluster-roles"] if r["metadata"]["name"] == "system:node")
    node["rules"] += gated_roles.node_rules(enabled)
    return [
        (resource(f"{plural}.rbac.authorization.k8s.io"), obj)
        for name, plural in _PLURALS.items()
        for obj in packed[name]
    ]


async def run(services: Services) -> None:
    policy = _policy(services.features.enabled)
    aggregated = _aggregate([obj for r, obj in policy if r.plural == "clusterroles"])
    for r in {r.plural: r for r, _ in policy}.values():
        await services.registry(r).open()
    await asyncio.gather(*(_reconcile(services, r, obj) for r, obj in policy))
    await asyncio.gather(*(_fill(services, name, rules) for name, rules in aggregated.items()))


def _aggregate(roles: list[Obj]) -> dict[str, list[Obj]]:
    """The rules that aggregated roles start with, so that they hold before any controller runs."""
    found: dict[str, list[Obj]] = {}
    for _ in range(3):  # edit is part of admin, view of edit
        for role in roles:
            selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
            if not selectors:
                continue
            rules: list[Obj] = []
            parsed = [Selector.of(s) for s in selectors]
            for other in sorted(roles, key=lambda r: str(r["metadata"]["name"])):
                if other is role or not any(s.matches(other["metadata"].get("labels") or {}) for s in parsed):
                    continue
                own = found.get(other["metadata"]["name"]) or other.get("rules") or []
                rules += [r for r in own if r not in rules]
            found[role["metadata"]["name"]] = rules
    return found


async def _fill(services: Services, name: str, rules: list[Obj]) -> None:
    r = resource("clusterroles.rbac.authorization.k8s.io")
    current = services.get(r, "", name)
    if current is not None and not current.get("rules") and rules:
        await services.update(r, "", {**current, "rules": rules})


async def _reconcile(services: Services, r: Resource, wanted: Obj) -> None:
    meta = wanted["metadata"]
    current = services.get(r, meta.get("namespace", ""), meta["name"])
    if current is None:
        await ensure(services, r, wanted)
        return
    annotations = current["metadata"].get("annotations") or {}
    if annotations.get(AUTOUPDATE) != "true":
        return
    changed = _with_what_is_missing(current, wanted)
    if changed is not None:
        try:
            await services.update(r, meta.get("namespace", ""), changed)
        except ApiError as e:
            if e.code not in (404, 409):
                raise


def _with_what_is_missing(current: Obj, wanted: Obj) -> Obj | None:
    meta = current["metadata"]
    labels = {**(meta.get("labels") or {}), **(wanted["metadata"].get("labels") or {})}
    changed = {**current, "metadata": {**meta, "labels": labels}}
    if "subjects" in wanted:
        have = current.get("subjects") or []
        missing = [s for s in wanted["subjects"] if not any(_same_subject(s, h) for h in have)]
        if missing:
            changed["subjects"] = have + missing
    elif not wanted.get("aggregationRule"):
        owned = [Rule(x) for x in current.get("rules") or ()]
        lost = uncovered(owned, [Rule(x) for x in wanted.get("rules") or ()])
        if lost:
            changed["rules"] = [*(current.get("rules") or ()), *lost]
    elif not current.get("aggregationRule"):
        changed["aggregationRule"] = wanted["aggregationRule"]
    return changed if changed != current else None


def _same_subject(a: Obj, b: Obj) -> bool:
    return all(a.get(k, "") == b.get(k, "") for k in ("kind", "name", "namespace"))
