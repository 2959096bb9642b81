"""The downward API: fields and resources of a pod as text, for variables and files.

Source: pkg/fieldpath/fieldpath.go, pkg/api/v1/resource/helpers.go, kubelet_pods.go podFieldSelectorRuntimeValue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from berg.kubelet import pod as p
from berg.machinery import quantity
from berg.machinery.status import Obj


class DownwardError(Exception):
    """The text goes into the container's CreateContainerConfigError or the volume's FailedMount."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What a pod's object does not say itself."""

    ips: tuple[str, ...]
    host_ips: tuple[str, ...]
    node_name: str
    allocatable: Mapping[str, str]
    """The node's, which stands in for a limit that is not set."""


def format_map(values: Mapping[str, str]) -> str:
    return "\n".join(f"{k}={orjson.dumps(v).decode()}" for k, v in sorted(values.items()))


def field_value(pod: Obj, path: str, facts: PodFacts) -> str:
    meta = pod["metadata"]
    if path.endswith("']") and "['" in path:
        head, subscript = path[:-2].split("['", 1)
        if head == "metadata.annotations":
            return p.annotations(pod).get(subscript, "")
        if head == "metadata.labels":
            return p.labels(pod).get(subscript, "")
        raise DownwardError(f'fieldPath "{path}" does not support subscript')
    match path:
        case "metadata.annotations":
            return format_map(p.annotations(pod))
        case "metadata.labels":
            return format_map(p.labels(pod))
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return meta.get(path.removeprefix("metadata."), "")
        case "spec.nodeName":
            return pod["spec"].get("nodeName") or facts.node_name
        case "spec.serviceAccountName":
            return pod["spec"].get("serviceAccountName", "")
        case "spec.restartPolicy":
            return p.restart_policy(pod)
        case "spec.schedulerName":
            return pod["spec"].get("schedulerName", "")
        case "status.hostIP":
            return facts.host_ips[0] if facts.host_ips else ""
        case "status.hostIPs":
            return ",".join(facts.host_ips)
        case "status.podIP":
            return facts.ips[0] if facts.ips else ""
        case "status.podIPs":
            return ",".join(facts.ips)
        case "status.phase":
            return p.phase(pod)
        case "status.nominatedNodeName":
            return (pod.get("status") or {}).get("nominatedNodeName", "")
    raise DownwardError(f"unsupported fieldPath: {path}")


def resource_value(pod: Obj, c: Obj, ref: Obj, facts: PodFacts) -> str:
    """`limits.cpu` and the like of `ref.containerName` (or of `c`), in units of the divisor, rounded up."""
    target = p.container(pod, ref["containerName"]) if ref.get("containerName") else c
    if target is None:
        raise DownwardError(f"container {ref['containerName']} not found")
    section, _, resource = ref["resource"].partition(".")
    if section not in ("limits", "requests") or not resource:
        raise DownwardError(f"unsupported container resource : {ref['resource']}")
    resources = target.get("resources") or {}
    value = (resources.get(section) or {}).get(resource)
    if section == "limits" and not value:
        value = ((pod["spec"].get("resources") or {}).get("limits") or {}).get(resource)
        if not value and resource in ("cpu", "memory", "ephemeral-storage"):
            value = facts.allocatable.get(resource)
    divisor = ref.get("divisor") or "1"
    if str(divisor) == "0":
        divisor = "1"
    if resource == "cpu":
        return str(-(-quantity.milli(value or "0") // quantity.milli(divisor)))
    return str(-(-quantity.value(value or "0") // quantity.value(divisor)))
