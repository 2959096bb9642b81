"""NodePorts: host ports that the pod asks for must be free on the node."""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.scheduler.framework.events import Action, EventWithHint, on
from berg.scheduler.framework.interface import Cycle, Filter, Ints, Rows, Scope
from berg.scheduler.framework.status import Status, unschedulable
from berg.scheduler.state.podinfo import HostPort, PodClass, PodInfo

REASON = "node(s) didn't have free ports for the requested pod ports"


class NodePorts(Filter):
    name = "NodePorts"
    scope = Scope.PODS

    def applies(self, cls: PodClass) -> bool:
        return bool(cls.host_ports)

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        taken = np.zeros(cycle.snapshot.capacity, dtype=np.int64)
        for port in cycle.cls.host_ports:
            for row, ips in cycle.snapshot.ports.get((port.protocol, port.port), {}).items():
                if any(port.conflicts(HostPort(port.protocol, ip, port.port)) for ip in ips):
                    taken[row] = 1
        return taken[rows]

    def explain(self, cycle: Cycle, code: int) -> Status:
        return unschedulable(REASON)

    def events(self) -> list[EventWithHint]:
        return [on("AssignedPod", Action.DELETE, _frees_a_port), on("Node", Action.ADD)]


def _frees_a_port(pod: PodInfo, old: Any, new: Any) -> bool:
    if old is None or not old["spec"].get("nodeName"):
        return False
    held = {
        (p.get("protocol") or "TCP", p["hostPort"])
        for c in old["spec"].get("containers") or ()
        for p in c.get("ports") or ()
        if p.get("hostPort")
    }
    return any((p.protocol, p.port) in held for p in pod.cls.host_ports)
