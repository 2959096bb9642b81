"""Which volume suits which claim. No I/O.

Source: pkg/controller/volume/persistentvolume/index.go, k8s.io/component-helpers storage/volume.
"""

from __future__ import annotations

from berg.machinery import meta, quantity
from berg.machinery.labels import Selector
from berg.machinery.status import Obj

CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(obj: Obj) -> str:
    """Of a claim or volume; the annotation of old goes before."""
    known = meta.annotations(obj).get(CLASS)
    return known if known is not None else obj["spec"].get("storageClassName") or ""


def is_bound_to(volume: Obj, claim: Obj) -> bool:
    """By UID; a claimRef without one is a reservation by name."""
    ref = volume["spec"].get("claimRef")
    if ref is None or ref["name"] != meta.name(claim) or ref.get("namespace") != meta.namespace(claim):
        return False
    return not ref.get("uid") or ref["uid"] == meta.uid(claim)


def _requested(claim: Obj) -> int:
    amounts = (claim["spec"].get("resources") or {}).get("requests") or {}
    return quantity.value(amounts.get("storage", "0"))


def size(volume: Obj) -> int:
    return quantity.value((volume["spec"].get("capacity") or {}).get("storage", "0"))


def fault(volume: Obj, claim: Obj) -> str:
    """Why they do not fit, or an empty text."""
    spec, wants = volume["spec"], claim["spec"]
    if meta.is_deleting(volume):
        return f'the volume is marked for deletion "{meta.name(volume)}"'
    if size(volume) < _requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if (spec.get("volumeAttributesClassName") or "") != (wants.get("volumeAttributesClassName") or ""):
        return "volumeAttributesClassName does not match"
    if (spec.get("volumeMode") or "Filesystem") != (wants.get("volumeMode") or "Filesystem"):
        return "incompatible volumeMode"
    if not set(wants.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return "incompatible accessMode"
    return ""


def smallest(volumes: list[Obj], claim: Obj) -> Obj | None:
    """The smallest that fits; a claim with a selector takes only what it selects."""
    text = claim["spec"].get("selector")
    selector = Selector.of(text) if text is not None else None
    fitting = [
        v
        for v in volumes
        if not fault(v, claim)
        and (selector is None or selector.matches(meta.labels(v)))
        and (v.get("status") or {}).get("phase") in (None, "Available", "Pending")
    ]
    return min(fitting, key=lambda v: (size(v), meta.name(v)), default=None)
