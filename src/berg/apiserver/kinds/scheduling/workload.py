"""Workloads and PodGroups (alpha): gang scheduling.

Source: KEP-4671; kubernetes pkg/printers printWorkload, printPodGroup.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Strategy, strategy_for
from berg.machinery.status import Obj


def _status(obj: Obj) -> str:
    if disrupted := cells.condition(obj, "DisruptionTarget"):
        return str(disrupted.get("reason") or "")
    scheduled = cells.condition(obj, "PodGroupScheduled")
    if scheduled is None:
        return "Pending"
    return "Scheduled" if scheduled.get("status") == "True" else "Unschedulable"


@strategy_for("scheduling.k8s.io", "workloads")
class WorkloadStrategy(Strategy):
    has_status = False
    columns = [cells.NAME, cells.AGE]


@strategy_for("scheduling.k8s.io", "podgroups")
class PodGroupStrategy(Strategy):
    status_metadata = ()
    columns = [
        cells.NAME,
        Column("Policy", lambda o: "Gang" if cells.at("spec.schedulingPolicy.gang", None)(o) is not None else "Basic"),
        Column("Workload", cells.at("spec.podGroupTemplateRef.workload.workloadName", "<none>")),
        Column("Status", _status),
        cells.AGE,
    ]
