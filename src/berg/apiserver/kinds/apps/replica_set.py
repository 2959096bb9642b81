"""ReplicaSets.

Source: kubernetes pkg/registry/apps/replicaset, pkg/apis/apps/v1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.workload import WorkloadStrategy, count, selector_column
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery.status import FieldError, Obj


@strategy_for("apps", "replicasets")
class ReplicaSetStrategy(WorkloadStrategy):
    initial_status = {"replicas": 0}
    spec_defaults = (("replicas", 1),)
    columns = [
        cells.NAME,
        Column("Desired", count("spec.replicas"), "integer"),
        Column("Current", count("status.replicas"), "integer"),
        Column("Ready", count("status.readyReplicas"), "integer"),
        cells.AGE,
        *cells.containers_and_images(cells.template_spec),
        selector_column(),
    ]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_replica_set

        return validate_replica_set(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_replica_set_update

        return validate_replica_set_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_replica_counts

        return validate_replica_counts(obj, old)
