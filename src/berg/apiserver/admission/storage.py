"""Storage: the default class of a claim, the finalizers that keep what is in use, which claims may grow.

Source: kubernetes plugin/pkg/admission/storage.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery import quantity
from berg.machinery.resources import resource
from berg.machinery.status import Obj

_CLASSES = "storageclasses.storage.k8s.io"
_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
FINALIZERS = {
    "persistentvolumes": "kubernetes.io/pv-protection",
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "volumeattributesclasses": "kubernetes.io/vac-protection",
}


def default_class(classes: list[Obj]) -> Obj | None:
    """The newest that is marked as default; by name among those of one second."""
    marked = [c for c in classes if any((c["metadata"].get("annotations") or {}).get(a) == "true" for a in _DEFAULT)]
    marked.sort(key=lambda c: c["metadata"]["name"])
    return max(marked, key=lambda c: c["metadata"].get("creationTimestamp") or "", default=None)


class DefaultStorageClass(Plugin):
    name = "DefaultStorageClass"
    mutating = True
    operations = frozenset({CREATE})
    resources = frozenset({"persistentvolumeclaims"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None or _BETA_CLASS in (a.obj["metadata"].get("annotations") or {}):
            return
        spec = a.obj["spec"]
        if spec.get("storageClassName") is None and (found := default_class(self.api.list(resource(_CLASSES)))):
            spec["storageClassName"] = found["metadata"]["name"]


class StorageObjectInUseProtection(Plugin):
    name = "StorageObjectInUseProtection"
    mutating = True
    operations = frozenset({CREATE})
    resources = frozenset({"persistentvolumes", "persistentvolumeclaims", "volumeattributesclasses.storage.k8s.io"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        finalizers = a.obj["metadata"].get("finalizers") or []
        if (finalizer := FINALIZERS[a.resource.plural]) not in finalizers:
            a.obj["metadata"]["finalizers"] = [*finalizers, finalizer]


class PersistentVolumeClaimResize(Plugin):
    name = "PersistentVolumeClaimResize"
    validating = True
    operations = frozenset({UPDATE})
    resources = frozenset({"persistentvolumeclaims"})

    async def validate(self, a: Attributes) -> None:
        if a.obj is None or a.old is None:
            return
        old, new = _requested(a.old), _requested(a.obj)
        if new <= old:
            return
        if (a.old.get("status") or {}).get("phase") != "Bound":
            raise forbidden(a, "only bound persistent volume claims can be expanded")
        annotations = a.obj["metadata"].get("annotations") or {}
        name = annotations.get(_BETA_CLASS) or a.obj["spec"].get("storageClassName") or ""
        found = self.api.get(resource(_CLASSES), "", name) if name else None
        if not (found or {}).get("allowVolumeExpansion"):
            raise forbidden(
                a,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize",
            )


def _requested(claim: Obj) -> int:
    amounts = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    try:
        return quantity.of(amounts.get("storage", 0)).nano
    except ValueError:
        return 0
