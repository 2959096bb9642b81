"""The last status of a pod of which nothing is left: every container that may have run has ended, somehow. Pure.

Source: pkg/kubelet/status/status_manager.go TerminatePod.
"""

from __future__ import annotations

from berg.kubelet import pod as p
from berg.kubelet.container_statuses import STATUS_UNKNOWN
from berg.machinery.status import Obj

LOST: Obj = {
    "terminated": {
        "exitCode": 137,
        "reason": STATUS_UNKNOWN,
        "message": "The container could not be located when the pod was terminated",
        "startedAt": None,
        "finishedAt": None,
    }
}


def final(pod: Obj, status: Obj) -> Obj:
    """`status` with a terminal phase (but for static pods) and without containers that still wait to run."""
    end = dict(status)
    if _initialized(pod, status):
        end["containerStatuses"] = [_ended(s) for s in status.get("containerStatuses") or ()]
    if inits := status.get("initContainerStatuses"):
        tried = max(
            (i + 1 for i, s in enumerate(inits) if "waiting" not in s["state"] or _last(s) is not None), default=1
        )
        end["initContainerStatuses"] = [_ended(s) if i < tried else s for i, s in enumerate(inits)]
    if not end.get("containerStatuses"):
        end.pop("containerStatuses", None)
    if not p.is_static(pod) and not p.is_terminal_phase(status.get("phase") or ""):
        end["phase"] = "Failed"
    return end


def _ended(s: Obj) -> Obj:
    return s if "terminated" in (s.get("state") or {}) else {**s, "state": LOST}


def _last(s: Obj) -> Obj | None:
    return (s.get("lastState") or {}).get("terminated")


def _initialized(pod: Obj, status: Obj) -> bool:
    """Whether regular containers can have been started at all."""
    inits = p.init_containers(pod)
    if not inits:
        return True
    if any("waiting" not in s["state"] or _last(s) is not None for s in status.get("containerStatuses") or ()):
        return True
    statuses = status.get("initContainerStatuses") or []
    if not statuses:
        return False
    last = statuses[-1]
    if p.is_sidecar(inits[-1]):
        return "running" in last["state"] and bool(last.get("started"))
    ends = (_last(last), last["state"].get("terminated"))
    return any(e is not None and e.get("exitCode") == 0 for e in ends)
