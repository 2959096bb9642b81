"""CSIDrivers, CSINodes and CSIStorageCapacities: what CSI drivers tell of themselves.

Source: kubernetes pkg/apis/storage/v1/defaults.go, pkg/apis/storage/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from berg.apiserver.kinds import cells, checks
from berg.apiserver.kinds.core.pod_spec.resources import canonical_list
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


def _flag(key: str, default: bool = False) -> Callable[[Obj], bool]:
    def value(obj: Obj) -> bool:
        found = (obj.get("spec") or {}).get(key)
        return default if found is None else bool(found)

    return value


def _tokens(obj: Obj) -> str:
    requests = (obj.get("spec") or {}).get("tokenRequests")
    return "<unset>" if requests is None else ",".join(r.get("audience") or "" for r in requests)


DRIVER_DEFAULTS = (
    ("attachRequired", True),
    ("podInfoOnMount", False),
    ("storageCapacity", False),
    ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
    ("requiresRepublish", False),
    ("seLinuxMount", False),
)


@strategy_for("storage.k8s.io", "csidrivers")
class CSIDriverStrategy(Strategy):
    namespaced = False
    has_status = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("AttachRequired", _flag("attachRequired", True), "boolean"),
        Column("PodInfoOnMount", _flag("podInfoOnMount"), "boolean"),
        Column("StorageCapacity", _flag("storageCapacity"), "boolean"),
        Column("TokenRequests", _tokens),
        Column("RequiresRepublish", _flag("requiresRepublish"), "boolean"),
        Column("Modes", lambda o: ",".join((o.get("spec") or {}).get("volumeLifecycleModes") or ()) or "<none>"),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            spec = obj["spec"] = {}
        for key, value in DRIVER_DEFAULTS:
            if spec.get(key) is None:
                spec[key] = value
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.storage.validation import validate_csi_driver

        return validate_csi_driver(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return self.validate(ctx, obj) + immutable(obj, old, "spec.attachRequired", "spec.volumeLifecycleModes")

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        spec = obj.get("spec") or {}
        tokens = spec.get("tokenRequests")
        if not tokens or spec.get("serviceAccountTokenInSecrets") is not None:
            return ()
        if old is not None and tokens == (old.get("spec") or {}).get("tokenRequests"):
            return ()
        return (
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
            "possible logging of tokens in volume attributes",
        )


@strategy_for("storage.k8s.io", "csinodes")
class CSINodeStrategy(Strategy):
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("Drivers", lambda o: len((o.get("spec") or {}).get("drivers") or ()), "integer"),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        if obj.get("spec") is None:
            obj["spec"] = {}
        obj["spec"].setdefault("drivers", None)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.storage.validation import validate_csi_node

        return validate_csi_node(obj)


@strategy_for("storage.k8s.io", "csistoragecapacities")
class CSIStorageCapacityStrategy(Strategy):
    has_status = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("Created At", cells.at("metadata.creationTimestamp"), "date"),
    ]

    def default(self, obj: Obj) -> None:
        sizes = {k: obj[k] for k in ("capacity", "maximumVolumeSize") if obj.get(k) is not None}
        canonical_list(sizes)
        obj.update(sizes)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors = validate_selector(obj.get("nodeTopology"), "nodeTopology")
        errors += checks.named("storageClassName", obj.get("storageClassName") or "")
        if obj.get("capacity") is not None:
            errors += checks.amount("capacity", "storage", obj["capacity"])
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return immutable(obj, old, "nodeTopology", "storageClassName")

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.deprecated_labels import LABELS, in_term

        selector = obj.get("nodeTopology") or {}
        labels = (key for key in selector.get("matchLabels") or () if key in LABELS)
        return [*in_term(selector, "nodeTopology"), *(f"nodeTopology.matchLabels.{k}: {LABELS[k]}" for k in labels)]
