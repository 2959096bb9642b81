"""DaemonSets.

Source: kubernetes pkg/registry/apps/daemonset, pkg/apis/apps/v1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.workload import WorkloadStrategy, count, selector_column
from berg.apiserver.registry.strategy import Column, Context, strategy_for
from berg.machinery.status import FieldError, Obj

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


@strategy_for("apps", "daemonsets")
class DaemonSetStrategy(WorkloadStrategy):
    initial_status = {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    }
    spec_defaults = (("revisionHistoryLimit", 10),)
    label_recommended = False
    columns = [
        cells.NAME,
        Column("Desired", count("status.desiredNumberScheduled"), "integer"),
        Column("Current", count("status.currentNumberScheduled"), "integer"),
        Column("Ready", count("status.numberReady"), "integer"),
        Column("Up-to-date", count("status.updatedNumberScheduled"), "integer"),
        Column("Available", count("status.numberAvailable"), "integer"),
        Column("Node Selector", lambda o: cells.labels(cells.template_spec(o).get("nodeSelector"))),
        cells.AGE,
        *cells.containers_and_images(cells.template_spec),
        selector_column(),
    ]

    def default(self, obj: Obj) -> None:
        super().default(obj)
        metadata, spec = obj["metadata"], obj["spec"]
        if TEMPLATE_GENERATION not in (metadata.get("annotations") or {}):
            self._template_generation(obj, 0)
        strategy = spec.get("updateStrategy")
        if strategy is None:
            strategy = spec["updateStrategy"] = {}
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate")
            if rolling is None:
                rolling = strategy["rollingUpdate"] = {}
            if rolling.get("maxUnavailable") is None:
                rolling["maxUnavailable"] = 1
            if rolling.get("maxSurge") is None:
                rolling["maxSurge"] = 0

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        super().prepare_for_create(ctx, obj)
        self._template_generation(obj, 1)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """An annotation counts the changes of the template; it can't be set from outside."""
        known = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1")
        generation = int(known) if known.isdigit() else 1
        if (obj.get("spec") or {}).get("template") != (old.get("spec") or {}).get("template"):
            generation += 1
        self._template_generation(obj, generation)

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        known = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION)
        if known is not None:
            self._template_generation(obj, known)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_daemon_set_status

        return validate_daemon_set_status(obj, old)

    def _template_generation(self, obj: Obj, generation: int | str) -> None:
        obj["metadata"]["annotations"] = {
            **(obj["metadata"].get("annotations") or {}),
            TEMPLATE_GENERATION: str(generation),
        }

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_daemon_set

        return validate_daemon_set(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.apps.validation import validate_daemon_set_update

        return validate_daemon_set_update(obj, old)
