"""What an object uses of a quota, which of a quota's resources it touches, and which scopes it falls under.

Source: kubernetes pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from datetime import timedelta

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes
from berg.apiserver.kinds.core.pod_spec.label_keys import affinity_terms
from berg.apiserver.kinds.core.pod_spec.resources import (
    Amounts,
    is_pod_level,
    parsed,
    pod_limits,
    pod_requests,
    qos_class,
)
from berg.machinery import deviceclaims, quantity
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.quantity import Quantity
from berg.machinery.status import Obj

_ONE, _ZERO = quantity.from_value(1), quantity.from_value(0)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_POD_RESOURCES = frozenset(
    {"count/pods", "pods", *_COMPUTE, *(f"requests.{c}" for c in _COMPUTE), *(f"limits.{c}" for c in _COMPUTE)}
)
_MUST_BE_SET = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
_SERVICE_RESOURCES = frozenset({"count/services", "services", "services.nodeports", "services.loadbalancers"})
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_CLAIM_RESOURCES = frozenset({"count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage"})
_DEVICE_CLAIMS = "resourceclaims.resource.k8s.io"
_OLD_COUNTS = ("resourcequotas", "replicationcontrollers", "secrets", "configmaps")
"""kinds that are also counted under their bare name"""


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
            endings = tuple(f"{_CLASS_SUFFIX}{r}" for r in ("persistentvolumeclaims", "requests.storage"))
            return {n for n in names if n in _CLAIM_RESOURCES or n.endswith(endings)}
    wanted = {counts(group_resource)}
    if group_resource == _DEVICE_CLAIMS:
        wanted |= {n for n in names if n.endswith(deviceclaims.PER_CLASS)}
    if group_resource in _OLD_COUNTS:
        wanted.add(group_resource)
    return names & wanted


def usage(group_resource: str, obj: Obj, clock: Clock) -> Amounts:
    match group_resource:
        case "pods":
            return _pod(obj, clock)
        case "services":
            return _service(obj)
        case "persistentvolumeclaims":
            return _claim(obj)
    used = {counts(group_resource): _ONE}
    if group_resource == _DEVICE_CLAIMS:
        for name, number in deviceclaims.devices(obj).items():
            used[f"{name}{deviceclaims.PER_CLASS}"] = quantity.from_value(number)
    if group_resource in _OLD_COUNTS:
        used[group_resource] = _ONE
    return used


def _pod(pod: Obj, clock: Clock) -> Amounts:
    used = {"count/pods": _ONE}
    if not counts_still(pod, clock):
        return used
    spec = pod.get("spec") or {}
    return used | _compute(pod_requests(spec), pod_limits(spec))


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    used: Amounts = {"pods": _ONE}
    for name in _COMPUTE:
        if name in requests:
            used[name] = used[f"requests.{name}"] = requests[name]
        if name in limits:
            used[f"limits.{name}"] = limits[name]
    for name, amount in requests.items():
        if name.startswith("hugepages-"):
            used[name] = used[f"requests.{name}"] = amount
        elif "/" in name and "kubernetes.io/" not in name:
            used[f"requests.{name}"] = amount
    return used


def counts_still(pod: Obj, clock: Clock) -> bool:
    """What has ended, or should have been gone for long, uses nothing but its place."""
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return False
    metadata = pod.get("metadata") or {}
    deleting, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if deleting and grace is not None:
        return clock.now() <= parse_rfc3339(deleting) + timedelta(seconds=grace)
    return True


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
            given = _compute(parsed(resources.get("requests")), parsed(resources.get("limits")))
            for name in wanted - given.keys():
                lacking.setdefault(name, set()).add(c.get("name") or "")
    if not lacking:
        return ""
    return "must specify " + "; ".join(f"{n} for: {','.join(sorted(cs))}" for n, cs in sorted(lacking.items()))


def _service(service: Obj) -> Amounts:
    spec = service.get("spec") or {}
    ports, kind = spec.get("ports") or (), spec.get("type")
    nodes = 0
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False):
        nodes = len(ports)
    elif kind == "LoadBalancer":
        nodes = sum(1 for p in ports if p.get("nodePort"))
    return {
        "count/services": _ONE,
        "services": _ONE,
        "services.loadbalancers": _ONE if kind == "LoadBalancer" else _ZERO,
        "services.nodeports": quantity.from_value(nodes),
    }


def _allocated(claim: Obj) -> Quantity | None:
    return parsed((claim.get("status") or {}).get("allocatedResources")).get("storage")


def _claim(claim: Obj) -> Amounts:
    spec = claim.get("spec") or {}
    used = {"count/persistentvolumeclaims": _ONE, "persistentvolumeclaims": _ONE}
    annotations = (claim.get("metadata") or {}).get("annotations") or {}
    name = annotations.get("volume.beta.kubernetes.io/storage-class") or spec.get("storageClassName")
    if name:
        used[f"{name}{_CLASS_SUFFIX}persistentvolumeclaims"] = _ONE
    size = parsed((spec.get("resources") or {}).get("requests")).get("storage")
    allocated = _allocated(claim)
    if size is not None and allocated is not None and size < allocated:
        size = allocated
    if size is not None:
        used["requests.storage"] = size
        if name:
            used[f"{name}{_CLASS_SUFFIX}requests.storage"] = size
    return used


def is_terminating(pod: Obj) -> bool:
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def scope_selectors(quota: Obj) -> list[Obj]:
    spec = quota.get("spec") or {}
    plain = [{"scopeName": s, "operator": "Exists"} for s in spec.get("scopes") or ()]
    return plain + list((spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def in_scope(group_resource: str, selector: Obj, obj: Obj) -> bool:
    scope = selector.get("scopeName")
    if group_resource == "pods":
        return _pod_in_scope(scope or "", selector, obj)
    if group_resource == "persistentvolumeclaims" and scope == "VolumeAttributesClass":
        status, spec = obj.get("status") or {}, obj.get("spec") or {}
        names = {
            spec.get("volumeAttributesClassName"),
            status.get("currentVolumeAttributesClassName"),
            (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
        } - {None, ""}
        if selector.get("operator") == "Exists":
            return bool(names)
        return any(_selected(selector, n) for n in names) if names else _selected(selector, None)
    return False


def _pod_in_scope(scope: str, selector: Obj, pod: Obj) -> bool:
    spec = pod.get("spec") or {}
    match scope:
        case "Terminating":
            return is_terminating(pod)
        case "NotTerminating":
            return not is_terminating(pod)
        case "BestEffort":
            return _qos(pod) == "BestEffort"
        case "NotBestEffort":
            return _qos(pod) != "BestEffort"
        case "PriorityClass":
            name = spec.get("priorityClassName")
            return bool(name) if selector.get("operator") == "Exists" else _selected(selector, name)
        case "CrossNamespacePodAffinity":
            return any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in affinity_terms(spec))
    return False


def _qos(pod: Obj) -> str:
    return (pod.get("status") or {}).get("qosClass") or qos_class(pod)


def _selected(selector: Obj, value: str | None) -> bool:
    values = selector.get("values") or ()
    match selector.get("operator"):
        case "In":
            return bool(value) and value in values
        case "NotIn":
            return not value or value not in values
        case "Exists":
            return bool(value)
        case "DoesNotExist":
            return not value
    return False
