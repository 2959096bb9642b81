"""Who may have what of a claim: admin access to devices in use, by the namespace's label; the parts of a claim's
status, by permissions on `resourceclaims/binding` and `resourceclaims/driver`, which nobody can request.

Source: kubernetes pkg/registry/resource/authorization.go; KEP-5018, KEP-4817.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from berg.apiserver.auth import authorization
from berg.apiserver.auth.authorization import AuthzAttributes
from berg.apiserver.registry.strategy import Context
from berg.machinery import names
from berg.machinery.resources import resource
from berg.machinery.status import FieldError, Obj, forbidden_field

_ADMIN_LABEL = "resource.kubernetes.io/admin-access"
_NODE = "authentication.kubernetes.io/node-name"


def administered(spec: Obj) -> str:
    """Where a claim asks for admin access, if it does."""
    for i, request in enumerate((spec.get("devices") or {}).get("requests") or ()):
        if (request.get("exactly") or {}).get("adminAccess"):
            return f"spec.devices.requests[{i}].adminAccess"
    return ""


def _granted(status: Obj) -> str:
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    for i, result in enumerate(results):
        if result.get("adminAccess"):
            return f"status.allocation.devices.results[{i}].adminAccess"
    return ""


def may_administer(ctx: Context, path: str) -> list[FieldError]:
    if not path or ctx.services is None:
        return []
    namespace = ctx.services.get(resource("namespaces"), "", ctx.namespace) or {}
    if ((namespace.get("metadata") or {}).get("labels") or {}).get(_ADMIN_LABEL) == "true":
        return []
    why = f"admin access to devices requires the `{_ADMIN_LABEL}: true` label on the containing namespace"
    return [forbidden_field(path, why)]


async def may_write_status(ctx: Context, status: Obj, before: Obj) -> list[FieldError]:
    errors = [] if _granted(before) else may_administer(ctx, _granted(status))
    if ctx.services is None or ctx.services.authorizer is None:
        return errors
    if any((status.get(key) or None) != (before.get(key) or None) for key in ("allocation", "reservedFor")):
        refusal = await _refusal(ctx, [ctx.verb], "binding", "", "")
        if refusal:
            what = f'resource="resourceclaims/binding", verb="{ctx.verb}" permission: {refusal}'
            why = f"changing status.allocation or status.reservedFor requires {what}"
            errors.append(forbidden_field("status.allocation", why))
    if status.get("allocation") is None:
        return errors
    verbs = [f"arbitrary-node:{ctx.verb}"]
    if _on_its_node(ctx.user, status["allocation"]):
        verbs.insert(0, f"associated-node:{ctx.verb}")
    for driver in sorted(_changed_drivers(status, before)):
        refusal = await _refusal(ctx, verbs, "driver", ctx.namespace, driver)
        if refusal:
            what = f'resource="resourceclaims/driver", verb="[{" ".join(verbs)}]" permission: {refusal}'
            errors.append(forbidden_field("status.devices", f"changing status.devices requires {what}"))
    return errors


async def _refusal(ctx: Context, verbs: Sequence[str], subresource: str, namespace: str, name: str) -> str:
    """Why none of the verbs is allowed: what is said of the first."""
    first = ""
    r = ctx.resource
    for verb in verbs:
        asked = AuthzAttributes(ctx.user, verb, r.group, r.version, r.plural, subresource, namespace, name)
        verdict = await authorization.settled(ctx.services.authorizer.authorize(asked))
        if verdict.allowed:
            return ""
        reason = f"{verdict.error}: {verdict.reason}" if verdict.error and verdict.reason else verdict.error
        first = first or str(authorization.forbidden(asked, reason or verdict.reason))
    return first


def _changed_drivers(status: Obj, before: Obj) -> set[str]:
    def by_id(devices: Sequence[Obj] | None) -> dict[tuple[Any, ...], Obj]:
        return {tuple(d.get(k) or "" for k in ("driver", "pool", "device", "shareID")): d for d in devices or ()}

    new, old = by_id(status.get("devices")), by_id(before.get("devices"))
    return {key[0] for key in new.keys() | old.keys() if new.get(key) != old.get(key)}


def _on_its_node(user: Any, allocation: Obj) -> bool:
    """Whether a service account comes from a pod on the one node where the devices are."""
    nodes: list[str] = user.extra.get(_NODE) or []
    if not user.name.startswith("system:serviceaccount:") or len(nodes) != 1 or names.dns1123_subdomain(nodes[0]):
        return False
    terms: list[Obj] = (allocation.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    if len(terms) != 1 or terms[0].get("matchExpressions") or len(terms[0].get("matchFields") or []) != 1:
        return False
    one = terms[0]["matchFields"][0]
    return one == {"key": "metadata.name", "operator": "In", "values": [nodes[0]]}
