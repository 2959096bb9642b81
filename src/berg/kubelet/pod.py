"""Reading a pod: the questions that every room of the kubelet asks of a pod's dict.

Nothing here changes a pod. Names follow upstream: a static pod is one that does not come from the API, its
mirror pod is what the API shows of it.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from berg.machinery.status import Obj

CONFIG_SOURCE = "kubernetes.io/config.source"
CONFIG_HASH = "kubernetes.io/config.hash"
CONFIG_MIRROR = "kubernetes.io/config.mirror"
CONFIG_SEEN = "kubernetes.io/config.seen"

LABEL_POD_NAME = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER_NAME = "io.kubernetes.container.name"

ANNOTATION_HASH = "io.kubernetes.container.hash"
ANNOTATION_RESTART_COUNT = "io.kubernetes.container.restartCount"
ANNOTATION_TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
ANNOTATION_TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
ANNOTATION_PRE_STOP = "io.kubernetes.container.preStopHandler"
ANNOTATION_PORTS = "io.kubernetes.container.ports"
ANNOTATION_POD_DELETION_GRACE = "io.kubernetes.pod.deletionGracePeriod"
ANNOTATION_POD_TERMINATION_GRACE = "io.kubernetes.pod.terminationGracePeriod"


def uid(pod: Obj) -> str:
    return pod["metadata"]["uid"]


def name(pod: Obj) -> str:
    return pod["metadata"]["name"]


def namespace(pod: Obj) -> str:
    return pod["metadata"].get("namespace") or "default"


def full_name(pod: Obj) -> str:
    """`name_namespace`: how a static pod and its mirror find each other."""
    return f"{name(pod)}_{namespace(pod)}"


def show(pod: Obj) -> str:
    """`name_namespace(uid)`, as upstream's messages have it."""
    return f"{full_name(pod)}({uid(pod)})"


def annotations(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


def labels(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def generation(pod: Obj) -> int:
    return pod["metadata"].get("generation") or 0


def is_mirror(pod: Obj) -> bool:
    return CONFIG_MIRROR in annotations(pod)


def is_static(pod: Obj) -> bool:
    return annotations(pod).get(CONFIG_SOURCE, "api") != "api"


def host_network(pod: Obj) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def restart_policy(pod: Obj) -> str:
    return pod["spec"].get("restartPolicy") or "Always"


def containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("containers") or []


def init_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("initContainers") or []


def ephemeral_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Obj) -> Iterator[Obj]:
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def container(pod: Obj, wanted: str) -> Obj | None:
    return next((c for c in all_containers(pod) if c["name"] == wanted), None)


def is_sidecar(c: Obj) -> bool:
    """A restartable init container."""
    return c.get("restartPolicy") == "Always"


def has_sidecar(pod: Obj) -> bool:
    return any(is_sidecar(c) for c in init_containers(pod))


def field_path(pod: Obj, c: Obj) -> str:
    """`spec.containers{web}`: what an event about a container points to."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        if any(x["name"] == c["name"] for x in pod["spec"].get(key) or ()):
            return f"spec.{key}{{{c['name']}}}"
    return ""


def container_reference(pod: Obj, c: Obj) -> Obj:
    """The ObjectReference of one container of `pod`, for events."""
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": namespace(pod),
        "name": name(pod),
        "uid": uid(pod),
        "resourceVersion": pod["metadata"].get("resourceVersion", ""),
        "fieldPath": field_path(pod, c),
    }


def deletion_requested(pod: Obj) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def is_terminal_phase(text: str) -> bool:
    return text in ("Succeeded", "Failed")


def restarts_on_failure(pod: Obj) -> bool:
    return restart_policy(pod) != "Never"


def should_restart(c: Obj, pod: Obj, exit_code: int) -> bool:
    """Whether container `c` that ended with `exit_code` starts again: its own rules and policy, then the pod's.

    Source: KEP-5307 (container restart rules).
    """
    if c.get("restartPolicy"):
        for rule in c.get("restartPolicyRules") or ():
            codes = rule.get("exitCodes")
            if rule.get("action") == "Restart" and codes:
                inside = exit_code in (codes.get("values") or ())
                if inside == (codes.get("operator") == "In"):
                    return True
        policy = c["restartPolicy"]
    else:
        policy = restart_policy(pod)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def hash_container(c: Obj) -> int:
    """Changes exactly when the container must be made anew; only name and image do that."""
    text = orjson.dumps({"image": c.get("image", ""), "name": c["name"]})
    h = 0x811C9DC5
    for byte in text:
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def qos_class(pod: Obj) -> str:
    """Guaranteed, Burstable or BestEffort. The API server says it; for a static pod it is computed."""
    stated = (pod.get("status") or {}).get("qosClass")
    return stated or compute_qos(pod)


def compute_qos(pod: Obj) -> str:
    from berg.machinery import quantity

    pod_level = pod["spec"].get("resources")
    parts: list[Any] = (
        [pod_level] if pod_level else [c.get("resources") or {} for c in init_containers(pod) + containers(pod)]
    )
    any_set, guaranteed = False, True
    for resources in parts:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for r in ("cpu", "memory"):
            limit, request = quantity.milli(limits.get(r, "0")), quantity.milli(requests.get(r, "0"))
            any_set = any_set or bool(limit or request)
            if not limit or (request and request != limit):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def grace_period_s(pod: Obj) -> int:
    """The time this pod's containers are given: the deletion's, else the spec's."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        return int(deletion)
    stated = pod["spec"].get("terminationGracePeriodSeconds")
    return 30 if stated is None else int(stated)
