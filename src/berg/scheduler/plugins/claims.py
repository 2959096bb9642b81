"""The persistent volume claims of a pod, as the volume plugins share them."""

from __future__ import annotations

from typing import Any

from berg.machinery import quantity
from berg.machinery.labels import Selector
from berg.scheduler.state.objects import Objects
from berg.scheduler.state.podinfo import PodInfo

Obj = dict[str, Any]
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def claim_names(pod: PodInfo) -> list[tuple[str, bool]]:
    """(name, whether it is the claim of an ephemeral volume) in the order of the volumes."""
    found: list[tuple[str, bool]] = []
    for v in pod.cls.volumes:
        if claim := v.get("persistentVolumeClaim"):
            found.append((claim["claimName"], False))
        elif "ephemeral" in v:
            found.append((f"{pod.name}-{v['name']}", True))
    return found


def claims_of(pod: PodInfo, objects: Objects) -> tuple[list[Obj], str]:
    """(claims, fault): the fault is upstream's message when one cannot be used."""
    found: list[Obj] = []
    for name, ephemeral in claim_names(pod):
        claim = objects.get("PersistentVolumeClaim", pod.namespace, name)
        if claim is None:
            if ephemeral:
                return [], f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
            return [], f'persistentvolumeclaim "{name}" not found'
        volume = claim["spec"].get("volumeName") or ""
        if (claim.get("status") or {}).get("phase") == "Lost":
            return [], f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
        if claim["metadata"].get("deletionTimestamp"):
            return [], f'persistentvolumeclaim "{name}" is being deleted'
        if ephemeral and not any(
            o.get("controller") and o.get("uid") == pod.obj["metadata"].get("uid")
            for o in claim["metadata"].get("ownerReferences") or ()
        ):
            return [], f"PVC {pod.namespace}/{name} was not created for pod {pod.key} (pod is not owner)"
        found.append(claim)
    return found, ""


def storage_class_name(obj: Obj) -> str:
    """Of a claim or a volume: the old annotation wins."""
    annotated = (obj["metadata"].get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    return str(annotated if annotated is not None else obj["spec"].get("storageClassName") or "")


def is_bound(claim: Obj) -> bool:
    return bool(
        claim["spec"].get("volumeName") and BIND_COMPLETED in (claim["metadata"].get("annotations") or {})
    ) or bool(claim["spec"].get("volumeName") and (claim.get("status") or {}).get("phase") == "Bound")


def waits_for_consumer(claim: Obj, objects: Objects) -> bool:
    cls = objects.get("StorageClass", "", storage_class_name(claim))
    return cls is not None and cls.get("volumeBindingMode") == "WaitForFirstConsumer"


def volume_suits(volume: Obj, claim: Obj) -> bool:
    """Whether a free volume is what the claim asks for, wherever it may be reached from.

    Source: k8s.io/component-helpers storage/volume/pv_helpers.go, FindMatchingVolume.
    """
    spec, wanted = volume["spec"], claim["spec"]
    if (spec.get("volumeMode") or "Filesystem") != (wanted.get("volumeMode") or "Filesystem"):
        return False
    if (spec.get("volumeAttributesClassName") or "") != (wanted.get("volumeAttributesClassName") or ""):
        return False
    if volume["metadata"].get("deletionTimestamp"):
        return False
    asked = ((wanted.get("resources") or {}).get("requests") or {}).get("storage", "0")
    if quantity.value((spec.get("capacity") or {}).get("storage", "0")) < quantity.value(asked):
        return False
    if not set(wanted.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return False
    if ref := spec.get("claimRef"):
        meta = claim["metadata"]
        if (ref.get("namespace"), ref.get("name")) != (meta.get("namespace"), meta["name"]):
            return False
        return not ref.get("uid") or ref["uid"] == meta.get("uid")
    if (volume.get("status") or {}).get("phase") not in (None, "", "Available"):
        return False
    selector = wanted.get("selector")
    if selector and not Selector.of(selector).matches(volume["metadata"].get("labels") or {}):
        return False
    return storage_class_name(volume) == storage_class_name(claim)


def capacity(volume: Obj) -> int:
    return quantity.value((volume["spec"].get("capacity") or {}).get("storage", "0"))
