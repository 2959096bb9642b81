"""The pod's table: READY, STATUS and RESTARTS summarise what its containers are doing.

Source: kubernetes pkg/printers/internalversion/printers.go, printPod.
"""

from __future__ import annotations

from dataclasses import dataclass

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.resources import is_sidecar
from berg.apiserver.registry.strategy import Column
from berg.machinery.status import Obj


@dataclass(slots=True)
class Summary:
    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ""

    @property
    def restarts_text(self) -> str:
        if self.restarts and self.last_restart:
            return f"{self.restarts} ({cells.since(self.last_restart)} ago)"
        return str(self.restarts)


def summarize(pod: Obj) -> Summary:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    phase = status.get("phase") or ""
    s = Summary(reason=status.get("reason") or phase, total=len(spec.get("containers") or ()))
    scheduled = cells.condition(pod, "PodScheduled")
    if scheduled and scheduled.get("reason") == "SchedulingGated":
        s.reason = "SchedulingGated"

    sidecars = {c["name"] for c in spec.get("initContainers") or () if is_sidecar(c)}
    s.total += len(sidecars)
    if not _initializing(s, spec, status, sidecars) or cells.has_condition(pod, "Initialized"):
        _running(s, pod, status, sidecars)

    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            s.reason = "Unknown"
        elif phase not in ("Succeeded", "Failed"):
            s.reason = "Terminating"
    return s


def _count_restarts(s: Summary, container: Obj) -> None:
    s.restarts += container.get("restartCount") or 0
    terminated = (container.get("lastState") or {}).get("terminated") or {}
    s.last_restart = max(s.last_restart, terminated.get("finishedAt") or "")


def _initializing(s: Summary, spec: Obj, status: Obj, sidecars: set[str]) -> bool:
    """Whether an init container still keeps the pod from starting; then the reason says which."""
    for i, container in enumerate(status.get("initContainerStatuses") or ()):
        _count_restarts(s, container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            s.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            s.reason = f"Init:{_exit(terminated)}"
        elif waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            s.reason = f"Init:{waiting['reason']}"
        else:
            s.reason = f"Init:{i}/{len(spec.get('initContainers') or ())}"
        return True
    return False


def _exit(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _running(s: Summary, pod: Obj, status: Obj, sidecars: set[str]) -> None:
    s.restarts, s.last_restart = 0, ""
    for container in status.get("initContainerStatuses") or ():
        if container.get("name") in sidecars:
            _count_restarts(s, container)
    has_running = False
    error = ""
    for container in reversed(status.get("containerStatuses") or ()):
        _count_restarts(s, container)
        state = container.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            s.reason = waiting["reason"]
        elif terminated is not None:
            s.reason = _exit(terminated)
            if terminated.get("exitCode"):
                error = s.reason
        elif container.get("ready") and state.get("running") is not None:
            has_running = True
            s.ready += 1
    if s.reason == "Completed":
        if has_running and cells.has_condition(pod, "Ready"):
            s.reason = "Running"
        elif error:
            s.reason = error
        elif has_running:
            s.reason = "NotReady"


def _pod_ip(pod: Obj) -> str:
    status = pod.get("status") or {}
    ips = status.get("podIPs")
    return (ips[0].get("ip") if ips else status.get("podIP")) or "<none>"


def _readiness_gates(pod: Obj) -> str:
    gates = (pod.get("spec") or {}).get("readinessGates")
    if not gates:
        return "<none>"
    return f"{sum(cells.has_condition(pod, g.get('conditionType', '')) for g in gates)}/{len(gates)}"


def _ready(pod: Obj) -> str:
    s = summarize(pod)
    return f"{s.ready}/{s.total}"


def row_conditions(pod: Obj) -> list[Obj]:
    """A finished pod's row says so, and kubectl may hide it."""
    phase = (pod.get("status") or {}).get("phase")
    messages = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    if phase not in messages:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": messages[phase]}]


COLUMNS = [
    cells.NAME,
    Column("Ready", _ready),
    Column("Status", lambda pod: summarize(pod).reason),
    Column("Restarts", lambda pod: summarize(pod).restarts_text),
    cells.AGE,
    Column("IP", _pod_ip, priority=1),
    Column("Node", lambda pod: (pod.get("spec") or {}).get("nodeName") or "<none>", priority=1),
    Column("Nominated Node", lambda p: (p.get("status") or {}).get("nominatedNodeName") or "<none>", priority=1),
    Column("Readiness Gates", _readiness_gates, priority=1),
]
