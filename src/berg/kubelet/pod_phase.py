"""The phase of a pod, from its containers' statuses. Pure.

Source: pkg/kubelet/kubelet_pods.go getPhase.
"""

from __future__ import annotations

from berg.kubelet import pod as p
from berg.machinery.status import Obj


def phase(pod: Obj, statuses: list[Obj], *, terminal: bool, initialized: bool) -> str:
    """`terminal` when nothing of the pod runs any more and nothing will; `initialized` when a regular container ran."""
    by_name = {s["name"]: s for s in statuses}
    pending_init, failed_init = _init(pod, by_name)
    pending_sidecar = running = waiting = unknown = stopped = succeeded = final = 0
    for c in p.init_containers(pod):
        if not p.is_sidecar(c):
            continue
        s = by_name.get(c["name"])
        if s is None:
            unknown += 1
            continue
        state = s.get("state") or {}
        if "running" in state:
            pending_sidecar += not s.get("started")
            running += 1
        elif "waiting" in state:
            if "terminated" not in (s.get("lastState") or {}):
                pending_sidecar += 1
                waiting += 1
        elif "terminated" not in state:
            pending_sidecar += 1
            unknown += 1
    for c in p.containers(pod):
        s = by_name.get(c["name"])
        if s is None:
            unknown += 1
            continue
        state = s.get("state") or {}
        if "running" in state:
            running += 1
        elif "terminated" in state:
            code = state["terminated"].get("exitCode", 0)
            stopped += 1
            final += not p.should_restart(c, pod, code)
            succeeded += code == 0
        elif "waiting" in state:
            last = (s.get("lastState") or {}).get("terminated")
            if last is None:
                waiting += 1
            else:
                stopped += 1
                final += not p.should_restart(c, pod, last.get("exitCode", 0))
        else:
            unknown += 1
    if failed_init:
        return "Failed"
    if pending_init or (pending_sidecar and not initialized) or waiting:
        return "Pending"
    if running and not unknown:
        return "Running"
    if not running and stopped and not unknown:
        if terminal and not p.is_static(pod):
            return "Succeeded" if stopped == succeeded else "Failed"
        if stopped != final:
            return "Running"  # something is about to start again
        return "Succeeded" if stopped == succeeded else "Failed"
    return "Pending"


def _init(pod: Obj, by_name: dict[str, Obj]) -> tuple[int, int]:
    """(init containers that are not done, those that failed for good); sidecars are not counted."""
    pending = failed = 0
    for c in p.init_containers(pod):
        if p.is_sidecar(c):
            continue
        s = by_name.get(c["name"])
        state = (s.get("state") or {}) if s else {}
        ended = state.get("terminated")
        if ended is None and "waiting" in state and s is not None:
            ended = (s.get("lastState") or {}).get("terminated")
        if ended is None:
            pending += 1
        elif ended.get("exitCode", 0) != 0:
            failed += not p.should_restart(c, pod, ended["exitCode"])
    return pending, failed
