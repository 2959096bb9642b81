"""What one object uses of a ResourceQuota, and which of a quota's scopes it falls under: for the admission plugin that
refuses and for the controller that counts. No I/O.

Source: pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from berg.machinery import deviceclaims, quantity
from berg.machinery.clock import parse_rfc3339
from berg.machinery.quantity import Quantity
from berg.machinery.status import Obj

Amounts = dict[str, Quantity]

ONE = quantity.from_value(1)
ZERO = quantity.from_value(0)
COMPUTE = ("cpu", "memory", "ephemeral-storage")
CLASS = ".storageclass.storage.k8s.io/"
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
DEVICE_CLAIMS = "resourceclaims.resource.k8s.io"
OLD_COUNTS = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})


def resource_of(name: str) -> str:
    """The group-resource whose objects use `name` of a quota: `pods`, `deployments.apps`."""
    if name.startswith("count/"):
        return name.removeprefix("count/")
    if name in OLD_COUNTS:
        return name
    if name.startswith("services"):
        return "services"
    if name.endswith(deviceclaims.PER_CLASS):
        return DEVICE_CLAIMS
    if name in ("persistentvolumeclaims", "requests.storage") or CLASS in name:
        return "persistentvolumeclaims"
    return "pods"


def usage(group_resource: str, obj: Obj, now: datetime) -> Amounts:
    used = {f"count/{group_resource}": ONE}
    if group_resource == "pods":
        return used | _pod(obj, now)
    if group_resource == "services":
        return used | _service(obj)
    if group_resource == "persistentvolumeclaims":
        return used | _claim(obj)
    if group_resource == DEVICE_CLAIMS:
        return used | {
            f"{name}{deviceclaims.PER_CLASS}": quantity.from_value(n) for name, n in deviceclaims.devices(obj).items()
        }
    if group_resource in OLD_COUNTS:
        used[group_resource] = ONE
    return used


def counts_still(pod: Obj, now: datetime) -> bool:
    """What has ended, or should have been gone for long, uses nothing but its place."""
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return False
    metadata = pod.get("metadata") or {}
    deleting, grace_s = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if deleting and grace_s is not None:
        return now <= parse_rfc3339(deleting) + timedelta(seconds=grace_s)
    return True


def _pod(pod: Obj, now: datetime) -> Amounts:
    if not counts_still(pod, now):
        return {}
    spec = pod.get("spec") or {}
    return computed(pod_total(spec, "requests"), pod_total(spec, "limits"))


def computed(requests: Amounts, limits: Amounts) -> Amounts:
    """Of a pod, or of one of its containers."""
    used: Amounts = {"pods": ONE}
    for name in COMPUTE:
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


def pod_total(spec: Obj, field: str) -> Amounts:
    """Of the containers together, or of the hungriest moment of initialization; sidecars are part of both; what is
    said for the whole pod goes before; the overhead comes on top."""
    running: Amounts = {}
    for c in spec.get("containers") or ():
        _add(running, _of(c, field))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for c in spec.get("initContainers") or ():
        own = dict(_of(c, field))
        if c.get("restartPolicy") == "Always":
            _add(running, own)
            _add(sidecars, own)
            _raise(peak, sidecars)
        else:
            _add(own, sidecars)
            _raise(peak, own)
    _raise(running, peak)
    running.update(_of(spec, field))
    overhead = {k: quantity.of(v) for k, v in (spec.get("overhead") or {}).items()}
    _add(running, overhead if field == "requests" else {k: v for k, v in overhead.items() if k in running})
    return running


def _of(holder: Obj, field: str) -> Amounts:
    return {k: quantity.of(v) for k, v in ((holder.get("resources") or {}).get(field) or {}).items()}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def _raise(total: Amounts, least: Amounts) -> None:
    for name, amount in least.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def _service(service: Obj) -> Amounts:
    spec = service.get("spec") or {}
    ports, kind = spec.get("ports") or (), spec.get("type")
    node_ports = 0
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False):
        node_ports = len(ports)
    elif kind == "LoadBalancer":
        node_ports = sum(1 for p in ports if p.get("nodePort"))
    return {
        "services": ONE,
        "services.loadbalancers": ONE if kind == "LoadBalancer" else ZERO,
        "services.nodeports": quantity.from_value(node_ports),
    }


def _claim(claim: Obj) -> Amounts:
    spec = claim.get("spec") or {}
    used: Amounts = {"persistentvolumeclaims": ONE}
    name = ((claim.get("metadata") or {}).get("annotations") or {}).get(CLASS_ANNOTATION) or spec.get(
        "storageClassName"
    )
    sizes = [
        quantity.of(amounts["storage"])
        for amounts in (
            (spec.get("resources") or {}).get("requests"),
            (claim.get("status") or {}).get("allocatedResources"),
        )
        if amounts and "storage" in amounts
    ]
    if sizes:
        used["requests.storage"] = max(sizes, key=lambda q: q.nano)
    if name:
        for field in ("persistentvolumeclaims", "requests.storage"):
            if field in used:
                used[f"{name}{CLASS}{field}"] = used[field]
    return used


# -- scopes


def selectors(quota: Obj) -> list[Obj]:
    spec = quota.get("spec") or {}
    plain = [{"scopeName": s, "operator": "Exists"} for s in spec.get("scopes") or ()]
    return plain + list((spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def in_scope(group_resource: str, selector: Obj, obj: Obj) -> bool:
    scope, spec = selector.get("scopeName"), obj.get("spec") or {}
    if group_resource == "persistentvolumeclaims" and scope == "VolumeAttributesClass":
        names = attributes_classes(obj)
        return any(_selected(selector, n) for n in names) if names else _selected(selector, None)
    if group_resource != "pods":
        return False
    match scope:
        case "Terminating":
            return is_terminating(obj)
        case "NotTerminating":
            return not is_terminating(obj)
        case "BestEffort":
            return _best_effort(obj)
        case "NotBestEffort":
            return not _best_effort(obj)
        case "PriorityClass":
            return _selected(selector, spec.get("priorityClassName"))
        case "CrossNamespacePodAffinity":
            return any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in _affinity_terms(spec))
    return False


def attributes_classes(claim: Obj) -> set[str]:
    """The classes that a claim wants, has, or is on its way to."""
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    return {
        name
        for name in (
            spec.get("volumeAttributesClassName"),
            status.get("currentVolumeAttributesClassName"),
            (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
        )
        if name
    }


def is_terminating(pod: Obj) -> bool:
    """It has a time to end by."""
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def _best_effort(pod: Obj) -> bool:
    if known := (pod.get("status") or {}).get("qosClass"):
        return bool(known == "BestEffort")
    spec = pod.get("spec") or {}
    holders = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if spec.get("resources") is not None:
        holders = [spec]
    return not any(
        amount.nano > 0
        for holder in holders
        for field in ("requests", "limits")
        for name, amount in _of(holder, field).items()
        if name in ("cpu", "memory")
    )


def _selected(selector: Obj, value: str | None) -> bool:
    match selector.get("operator"):
        case "Exists":
            return bool(value)
        case "DoesNotExist":
            return not value
        case "In":
            return bool(value) and value in (selector.get("values") or ())
        case "NotIn":
            return not value or value not in (selector.get("values") or ())
    return False


def _affinity_terms(spec: Obj) -> list[Obj]:
    found: list[Obj] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        affinity = (spec.get("affinity") or {}).get(kind) or {}
        found += affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        found += [w["podAffinityTerm"] for w in preferred]
    return found
