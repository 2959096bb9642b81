"""Deployments.

Source: kubernetes pkg/registry/apps/deployment, pkg/apis/apps/v1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.workload import WorkloadStrategy, count
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery.status import FieldError, Obj


def _ready(obj: Obj) -> str:
    return f"{count('status.readyReplicas')(obj)}/{count('spec.replicas')(obj)}"


def _selector(obj: Obj) -> str:
    return cells.label_selector((obj.get("spec") or {}).get("selector"), empty="")


@strategy_for("apps", "deployments")
class DeploymentStrategy(WorkloadStrategy):
    status_metadata = ("annotations", "finalizers", "ownerReferences")
    spec_defaults = (("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600))
    columns = [
        cells.NAME,
        Column("Ready", _ready),
        Column("Up-to-date", count("status.updatedReplicas")),
        Column("Available", count("status.availableReplicas")),
        cells.AGE,
        *cells.containers_and_images(cells.template_spec),
        Column("Selector", _selector, priority=1),
    ]

    def default(self, obj: Obj) -> None:
        super().default(obj)
        spec = obj["spec"]
        strategy = spec.get("strategy")
        if strategy is None:
            strategy = spec["strategy"] = {}
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate")
            if rolling is None:
                rolling = strategy["rollingUpdate"] = {}
            for key in ("maxUnavailable", "maxSurge"):
                if rolling.get(key) is None:
                    rolling[key] = "25%"

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """Annotations raise the generation too: they are passed on to the ReplicaSets."""
        new, before = obj["metadata"], old["metadata"]
        if (new.get("annotations") or {}) != (before.get("annotations") or {}):
            new["generation"] = (before.get("generation") or 0) + 1

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_deployment

        return validate_deployment(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_deployment_update

        return validate_deployment_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_replica_counts

        return validate_replica_counts(obj, old)
