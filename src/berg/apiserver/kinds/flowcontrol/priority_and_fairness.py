"""FlowSchemas and PriorityLevelConfigurations.

Source: kubernetes pkg/apis/flowcontrol/v1/defaults.go, validation.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj, duplicate, required

GROUP = "flowcontrol.apiserver.k8s.io"
_QUEUING = (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50))


def _dangling(obj: Obj) -> str:
    found = cells.condition(obj, "Dangling")
    return "?" if found is None else str(found.get("status"))


@strategy_for(GROUP, "flowschemas")
class FlowSchemaStrategy(Strategy):
    metadata_checks = (1, 1, 0)
    status_metadata = ()
    namespaced = False
    columns = [
        cells.NAME,
        Column("PriorityLevel", cells.at("spec.priorityLevelConfiguration.name")),
        Column("MatchingPrecedence", cells.at("spec.matchingPrecedence", 0)),
        Column("DistinguisherMethod", cells.at("spec.distinguisherMethod.type", "<none>")),
        cells.AGE,
        Column("MissingPL", _dangling),
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is not None and not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = 1000

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.flowcontrol.validation import validate_flow_schema

        return validate_flow_schema(obj)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return _conditions(obj)


def _conditions(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        at, kind = f"status.conditions[{i}].type", condition.get("type") or ""
        if kind in seen:
            errors.append(duplicate(at, kind))
        seen.add(kind)
        if not kind:
            errors.append(required(at))
    return errors


def _limited(path: str) -> Callable[[Obj], object]:
    return cells.at(f"spec.limited.{path}", "<none>")


@strategy_for(GROUP, "prioritylevelconfigurations")
class PriorityLevelConfigurationStrategy(Strategy):
    metadata_checks = (1, 1, 0)
    status_metadata = ()
    namespaced = False
    columns = [
        cells.NAME,
        Column("Type", cells.at("spec.type")),
        Column("NominalConcurrencyShares", _limited("nominalConcurrencyShares")),
        Column("Queues", _limited("limitResponse.queuing.queues")),
        Column("HandSize", _limited("limitResponse.queuing.handSize")),
        Column("QueueLengthLimit", _limited("limitResponse.queuing.queueLengthLimit")),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec") or {}
        for key, shares in (("limited", 30), ("exempt", 0)):
            if (level := spec.get(key)) is not None:
                if level.get("nominalConcurrencyShares") is None:
                    level["nominalConcurrencyShares"] = shares
                if level.get("lendablePercent") is None:
                    level["lendablePercent"] = 0
        if queuing := ((spec.get("limited") or {}).get("limitResponse") or {}).get("queuing"):
            for key, value in _QUEUING:
                if not queuing.get(key):
                    queuing[key] = value

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.flowcontrol.validation import validate_priority_level

        return validate_priority_level(obj)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return _conditions(obj)
