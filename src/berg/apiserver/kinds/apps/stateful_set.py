"""StatefulSets.

Source: kubernetes pkg/registry/apps/statefulset, pkg/apis/apps/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.defaults import claim_spec_defaults
from berg.apiserver.kinds.workload import WorkloadStrategy, count
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj


def _rolling(obj: Obj) -> Obj | None:
    found: Obj | None = ((obj.get("spec") or {}).get("updateStrategy") or {}).get("rollingUpdate")
    return found


@strategy_for("apps", "statefulsets")
class StatefulSetStrategy(WorkloadStrategy):
    initial_status = {"replicas": 0, "availableReplicas": 0}
    spec_defaults = (("podManagementPolicy", "OrderedReady"), ("replicas", 1), ("revisionHistoryLimit", 10))
    label_recommended = False
    columns = [
        cells.NAME,
        Column("Ready", lambda o: f"{count('status.readyReplicas')(o)}/{count('spec.replicas')(o)}"),
        cells.AGE,
        *cells.containers_and_images(cells.template_spec),
    ]

    def default(self, obj: Obj) -> None:
        super().default(obj)
        spec = obj["spec"]
        strategy = spec.get("updateStrategy")
        if strategy is None:
            strategy = spec["updateStrategy"] = {}
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
            if strategy.get("rollingUpdate") is None:
                strategy["rollingUpdate"] = {}
        rolling = strategy.get("rollingUpdate") if strategy["type"] == "RollingUpdate" else None
        if rolling is not None and rolling.get("partition") is None:
            rolling["partition"] = 0
        retention = spec.get("persistentVolumeClaimRetentionPolicy")
        if retention is None:
            retention = spec["persistentVolumeClaimRetentionPolicy"] = {}
        for key in ("whenDeleted", "whenScaled"):
            if not retention.get(key):
                retention[key] = "Retain"
        for claim in spec.get("volumeClaimTemplates") or ():
            claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
            claim_spec_defaults(claim.setdefault("spec", {}))
            if not (status := claim.setdefault("status", {})).get("phase"):
                status["phase"] = "Pending"

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        super().prepare_for_create(ctx, obj)
        self._drop_disabled(ctx, obj)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        if "maxUnavailable" not in (_rolling(old) or {}):
            self._drop_disabled(ctx, obj)

    def _drop_disabled(self, ctx: Context, obj: Obj) -> None:
        """maxUnavailable waits for its feature gate, off by default."""
        if not ctx.enabled("MaxUnavailableStatefulSet") and (rolling := _rolling(obj)):
            rolling.pop("maxUnavailable", None)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_stateful_set

        return validate_stateful_set(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_stateful_set_update

        return validate_stateful_set_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_stateful_set_status

        return validate_stateful_set_status(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.core.volume_validation import claim_spec_warnings

        found = list(super().warnings(ctx, obj, old))
        for i, claim in enumerate((obj.get("spec") or {}).get("volumeClaimTemplates") or ()):
            at = f"spec.volumeClaimTemplates[{i}]" + ("" if old is None else ".Spec")
            found += claim_spec_warnings(claim.get("spec") or {}, at)
        limit = (obj.get("spec") or {}).get("revisionHistoryLimit")
        if limit is not None and limit < 0:
            found.append(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; "
                "a value >= 0 is recommended"
            )
        return found

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.dns1123_label(name.rstrip("-") + "a" if prefix and name.endswith("-") else name)
