"""What a simulated node reports of a pod. Nothing runs: these functions make the statuses that a kubelet would write.

How a pod lives is read from its annotations, with defaults that fit most tests:

    sim.berg.dev/start-delay      seconds until it runs
    sim.berg.dev/run-for          seconds until its containers exit (default: forever; a Job's pod: at once)
    sim.berg.dev/exit-code        with what code they exit (default 0)
    sim.berg.dev/terminate-delay  seconds from the request to delete it until it is gone
    sim.berg.dev/ready            "false": it runs but never becomes ready

Pure functions of a pod object; times come in, patches go out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from berg.machinery.clock import rfc3339

Obj = dict[str, Any]

PREFIX = "sim.berg.dev"


@dataclass(frozen=True, slots=True)
class Script:
    """How one pod lives."""

    start_delay_s: float = 0
    run_for_s: float | None = None
    exit_code: int = 0
    terminate_delay_s: float = 0
    ready: bool = True
    restart_policy: str = "Always"


def script(pod: Obj, *, job_run_s: float = 0) -> Script:
    meta, spec = pod["metadata"], pod["spec"]
    notes = meta.get("annotations") or {}
    of_job = any(o.get("kind") == "Job" for o in meta.get("ownerReferences") or ())
    run_for = _number(notes.get(f"{PREFIX}/run-for"), job_run_s if of_job else None)
    return Script(
        start_delay_s=_number(notes.get(f"{PREFIX}/start-delay"), 0) or 0,
        run_for_s=run_for,
        exit_code=int(_number(notes.get(f"{PREFIX}/exit-code"), 0) or 0),
        terminate_delay_s=_number(notes.get(f"{PREFIX}/terminate-delay"), 0) or 0,
        ready=notes.get(f"{PREFIX}/ready") != "false",
        restart_policy=spec.get("restartPolicy") or "Always",
    )


def _number(text: str | None, default: float | None) -> float | None:
    if text is None:
        return default
    try:
        return max(0.0, float(text))
    except ValueError:
        return default


def running(pod: Obj, how: Script, now: datetime, host_ip: str, pod_ip: str, restarts: int = 0) -> Obj:
    """The status of a pod whose containers have started (again)."""
    time = rfc3339(now)
    spec, old = pod["spec"], pod.get("status") or {}
    conditions = [
        ("PodReadyToStartContainers", True),
        ("Initialized", True),
        ("Ready", how.ready),
        ("ContainersReady", how.ready),
        ("PodScheduled", True),
    ]
    status: Obj = {
        "phase": "Running",
        "conditions": _conditions(pod, conditions, time),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "startTime": old.get("startTime") or time,
        "containerStatuses": [
            _container(c, pod, {"running": {"startedAt": time}}, how.ready, restarts) for c in spec["containers"]
        ],
    }
    if init := spec.get("initContainers"):
        status["initContainerStatuses"] = [_init(c, pod, time) for c in init]
    return status


def _init(c: Obj, pod: Obj, time: str) -> Obj:
    if c.get("restartPolicy") == "Always":
        return _container(c, pod, {"running": {"startedAt": time}}, True, 0)
    return _container(c, pod, {"terminated": _ended(pod, c, 0, time, time)}, True, 0)


def ended(pod: Obj, how: Script, now: datetime, started: str) -> Obj:
    """The status of a pod whose containers have exited for good."""
    time = rfc3339(now)
    good = how.exit_code == 0
    done = "PodCompleted" if good else "PodFailed"
    conditions = [
        ("PodReadyToStartContainers", False),
        ("Initialized", True),
        ("Ready", False),
        ("ContainersReady", False),
        ("PodScheduled", True),
    ]
    return {
        "phase": "Succeeded" if good else "Failed",
        "conditions": _conditions(pod, conditions, time, {"Ready": done, "ContainersReady": done, "Initialized": done}),
        "containerStatuses": [
            _container(c, pod, {"terminated": _ended(pod, c, how.exit_code, started, time)}, False, 0)
            for c in pod["spec"]["containers"]
        ],
    }


def _ended(pod: Obj, c: Obj, code: int, started: str, time: str) -> Obj:
    return {
        "exitCode": code,
        "reason": "Completed" if code == 0 else "Error",
        "startedAt": started,
        "finishedAt": time,
        "containerID": _id(pod, c),
    }


def _container(c: Obj, pod: Obj, state: Obj, ready: bool, restarts: int) -> Obj:
    return {
        "name": c["name"],
        "image": c.get("image") or "",
        "imageID": f"sim://{c.get('image') or ''}",
        "containerID": _id(pod, c),
        "state": state,
        "lastState": {},
        "ready": ready,
        "started": "running" in state,
        "restartCount": restarts,
    }


def _id(pod: Obj, c: Obj) -> str:
    """Says that no runtime knows it."""
    return f"sim://{pod['metadata'].get('uid', '')}/{c['name']}"


def _conditions(
    pod: Obj, wanted: list[tuple[str, bool]], time: str, reasons: dict[str, str] | None = None
) -> list[Obj]:
    """The kubelet's conditions set to `wanted`; others (readiness gates, DisruptionTarget) stay as they are."""
    old = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or ()}
    found: list[Obj] = []
    for kind, holds in wanted:
        value = "True" if holds else "False"
        before = old.pop(kind, None)
        same = before is not None and before.get("status") == value
        one: Obj = {
            "type": kind,
            "status": value,
            "lastProbeTime": None,
            "lastTransitionTime": before["lastTransitionTime"] if same and before else time,
        }
        if (generation := pod["metadata"].get("generation")) is not None:
            one["observedGeneration"] = generation
        if reasons and kind in reasons:
            one["reason"] = reasons[kind]
        found.append(one)
    return found + list(old.values())
