"""Which writes can change what is used of a quota, and which of its resources they touch. What an object uses is in
`berg.machinery.quotas`.

Source: kubernetes pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes
from berg.apiserver.kinds.core.pod_spec.resources import is_pod_level, parsed
from berg.machinery import deviceclaims
from berg.machinery.quantity import Quantity
from berg.machinery.quotas import CLASS, COMPUTE, DEVICE_CLAIMS, OLD_COUNTS, computed, is_terminating
from berg.machinery.status import Obj

_POD_RESOURCES = frozenset(
    {"count/pods", "pods", *COMPUTE, *(f"requests.{c}" for c in COMPUTE), *(f"limits.{c}" for c in COMPUTE)}
)
_MUST_BE_SET = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
_SERVICE_RESOURCES = frozenset({"count/services", "services", "services.nodeports", "services.loadbalancers"})
_CLAIM_RESOURCES = frozenset({"count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage"})


def counts(group_resource: str) -> str:
    """`count/deployments.apps`"""
    return f"count/{group_resource}"


def handles(a: Attributes) -> bool:
    """Whether a write can change what is used."""
    match a.resource.group_resource:
        case "pods":
            if a.subresource == "resize":
                return a.operation == UPDATE
            if a.subresource:
                return False
            if a.operation == UPDATE:
                return is_terminating(a.obj or {}) != is_terminating(a.old or {})
            return a.operation == CREATE
        case "services" | "resourceclaims.resource.k8s.io":
            return not a.subresource and a.operation in (CREATE, UPDATE)
        case "persistentvolumeclaims":
            if a.subresource == "status":
                return _allocated(a.obj or {}) != _allocated(a.old or {})
            return not a.subresource and a.operation in (CREATE, UPDATE)
    return not a.subresource and a.operation == CREATE


def matching(group_resource: str, names: set[str]) -> set[str]:
    """Those of a quota's resources that this kind uses."""
    match group_resource:
        case "pods":
            return {
                n
                for n in names
                if n in _POD_RESOURCES
                or n.startswith(("hugepages-", "requests.hugepages-"))
                or (n.startswith("requests.") and "/" in n and "kubernetes.io/" not in n)
            }
        case "services":
            return names & _SERVICE_RESOURCES
        case "persistentvolumeclaims":
            endings = tuple(f"{CLASS}{r}" for r in ("persistentvolumeclaims", "requests.storage"))
            return {n for n in names if n in _CLAIM_RESOURCES or n.endswith(endings)}
    wanted = {counts(group_resource)}
    if group_resource == DEVICE_CLAIMS:
        wanted |= {n for n in names if n.endswith(deviceclaims.PER_CLASS)}
    if group_resource in OLD_COUNTS:
        wanted.add(group_resource)
    return names & wanted


def missing(pod: Obj, restricted: set[str]) -> str:
    """What a pod must say because a quota limits it, and does not, or ""."""
    spec = pod.get("spec") or {}
    pod_level = spec.get("resources") or {}
    if any(is_pod_level(n) for which in ("requests", "limits") for n in pod_level.get(which) or ()):
        return ""
    wanted = restricted & _MUST_BE_SET
    lacking: dict[str, set[str]] = {}
    for key in ("containers", "initContainers"):
        for c in spec.get(key) or ():
            resources = c.get("resources") or {}
            given = computed(parsed(resources.get("requests")), parsed(resources.get("limits")))
            for name in wanted - given.keys():
                lacking.setdefault(name, set()).add(c.get("name") or "")
    if not lacking:
        return ""
    return "must specify " + "; ".join(f"{n} for: {','.join(sorted(cs))}" for n, cs in sorted(lacking.items()))


def _allocated(claim: Obj) -> Quantity | None:
    return parsed((claim.get("status") or {}).get("allocatedResources")).get("storage")
