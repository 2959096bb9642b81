"""ReplicationControllers.

Source: kubernetes pkg/registry/core/replicationcontroller, pkg/apis/core/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.workload import WorkloadStrategy, count
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj


@strategy_for("", "replicationcontrollers")
class ReplicationControllerStrategy(WorkloadStrategy):
    orphans = True
    initial_status = {"replicas": 0}
    spec_defaults = (("replicas", 1),)
    field_labels = ("status.replicas",)
    columns = [
        cells.NAME,
        Column("Desired", count("spec.replicas"), "integer"),
        Column("Current", count("status.replicas"), "integer"),
        Column("Ready", count("status.readyReplicas"), "integer"),
        cells.AGE,
        *cells.containers_and_images(cells.template_spec),
        Column("Selector", lambda o: cells.labels((o.get("spec") or {}).get("selector")), priority=1),
    ]

    def default(self, obj: Obj) -> None:
        super().default(obj)
        spec = obj["spec"]
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not obj["metadata"].get("labels"):
                obj["metadata"]["labels"] = dict(labels)

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        """Checked by a rule of its declaration, which counts bytes and knows no prefixes."""
        return [] if prefix else [m.replace("253 characters", "253 bytes") for m in names.dns1123_subdomain(name)]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_replication_controller

        return validate_replication_controller(obj)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_replica_counts

        return validate_replica_counts(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"status.replicas": str((obj.get("status") or {}).get("replicas") or 0)}
