"""`status.containerStatuses` and its siblings, from what the runtime says and what was said before. Pure.

Source: pkg/kubelet/kubelet_pods.go convertToAPIContainerStatuses.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from berg.kubelet import pod as p
from berg.kubelet.actions import any_regular_created, should_restart
from berg.kubelet.runtime_status import ContainerStatus, PodStatus
from berg.kubelet.start_errors import StartError
from berg.machinery import quantity
from berg.machinery.clock import rfc3339
from berg.machinery.status import Obj

Reason = Callable[[str], StartError | None]
"""Container name → why it could not be started last time."""

STATUS_UNKNOWN = "ContainerStatusUnknown"
MIN_SHARES_MILLI = 2
MIN_QUOTA_MILLI = 10


def time_of(nanoseconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(nanoseconds / 1e9, UTC))


def generate(
    pod: Obj, status: PodStatus, old: list[Obj], specs: list[Obj], runtime_name: str, reason: Reason, *, init: bool
) -> list[Obj]:
    """One status for each of `specs`. `old` are the statuses said before; `init` for init containers."""
    before = {s["name"]: s for s in old}
    waiting = "PodInitializing" if p.init_containers(pod) else "ContainerCreating"
    statuses: dict[str, Obj] = {}
    for c in specs:
        was = before.get(c["name"])
        if was is not None and "terminated" in (was.get("state") or {}):
            statuses[c["name"]] = dict(was)
            continue
        one: Obj = {
            "name": c["name"],
            "image": c.get("image", ""),
            "imageID": "",
            "ready": False,
            "restartCount": was.get("restartCount", 0) if was else 0,
            "state": {"waiting": {"reason": waiting}},
            "lastState": (was.get("lastState") or {}) if was else {},
        }
        if mounts := _volume_mounts(c):
            one["volumeMounts"] = mounts
        statuses[c["name"]] = one
        if was is not None and status.find(c["name"]) is None:
            _vanished(pod, one, was)
    _seen(pod, status, specs, before, statuses, runtime_name)
    for c in specs:
        if init and _lost_init(c, pod, status, statuses[c["name"]]):
            continue
        _waiting(c, pod, status, statuses[c["name"]], reason)
    if init:
        return [statuses[c["name"]] for c in specs]
    return [statuses[n] for n in sorted(statuses)]


def _volume_mounts(c: Obj) -> list[Obj]:
    mounts = []
    for m in c.get("volumeMounts") or ():
        one = {"name": m["name"], "mountPath": m["mountPath"]}
        if m.get("readOnly"):
            one["readOnly"] = True
            one["recursiveReadOnly"] = "Enabled" if m.get("recursiveReadOnly") == "Enabled" else "Disabled"
        mounts.append(one)
    return mounts


def _vanished(pod: Obj, one: Obj, was: Obj) -> None:
    """A container that ran and that the runtime no longer knows: it has ended, nobody knows how."""
    if "running" not in (was.get("state") or {}) or "terminated" in one["lastState"]:
        return
    one["lastState"] = {
        "terminated": {
            "exitCode": 137,
            "reason": STATUS_UNKNOWN,
            "message": "The container could not be located when the pod was deleted.  The container used to be Running",
            "startedAt": None,
            "finishedAt": None,
        }
    }
    if not p.deletion_requested(pod):
        one["restartCount"] += 1


def _seen(
    pod: Obj,
    status: PodStatus,
    specs: list[Obj],
    before: dict[str, Obj],
    statuses: dict[str, Obj],
    runtime_name: str,
) -> None:
    by_name = {c["name"]: c for c in specs}
    count: dict[str, int] = {}
    for s in status.containers:  # newest first; the second newest gives the last state
        spec = by_name.get(s.name)
        seen = count.get(s.name, 0)
        if spec is None or seen >= 2:
            continue
        converted = _convert(s, spec, before.get(s.name), runtime_name)
        if seen == 0:
            statuses[s.name] = converted
        else:
            said = (before.get(s.name, {}).get("lastState") or {}).get("terminated") or {}
            same = said.get("containerID") == f"{runtime_name}://{s.id}"
            statuses[s.name]["lastState"] = {"terminated": said} if same else converted["state"]
        count[s.name] = seen + 1


def _convert(s: ContainerStatus, spec: Obj, was: Obj | None, runtime_name: str) -> Obj:
    id = f"{runtime_name}://{s.id}"
    restarts = s.restart_count
    one: Obj = {
        "name": s.name,
        "image": s.image,
        "imageID": s.image_ref,
        "containerID": id,
        "ready": False,
        "lastState": {},
    }
    if was is not None:
        restarts = max(restarts, was.get("restartCount", 0))
        last = (was.get("lastState") or {}).get("terminated")
        ended = (was.get("state") or {}).get("terminated")
        if ended and was.get("containerID") != id:
            one["lastState"] = {"terminated": ended}
        elif last:
            one["lastState"] = {"terminated": last}
    if s.state == "running":
        one["state"] = {"running": {"startedAt": time_of(s.started_at)}}
    elif s.state == "exited":
        # What was said of this instance stays: its message may be gone with the pod's files.
        said = ((was or {}).get("state") or {}).get("terminated") or {}
        one["state"] = {"terminated": said if said.get("containerID") == id else _terminated(s, id)}
    elif s.state == "unknown" and was is not None and "running" in (was.get("state") or {}):
        one["state"] = {
            "terminated": {
                "exitCode": 137,
                "reason": STATUS_UNKNOWN,
                "message": "The container could not be located when the pod was terminated",
                "startedAt": None,
                "finishedAt": None,
            }
        }
        restarts = was.get("restartCount", 0) + 1
    else:
        one["state"] = {"waiting": {}}
    one["restartCount"] = restarts
    if mounts := _volume_mounts(spec):
        one["volumeMounts"] = mounts
    _resources(s, spec, was, one)
    if s.user is not None:
        user: Obj = {"uid": s.user.uid, "gid": s.user.gid}
        if s.user.supplemental_groups:
            user["supplementalGroups"] = list(s.user.supplemental_groups)
        one["user"] = {"linux": user}
    if s.stop_signal:
        one["stopSignal"] = s.stop_signal
    return one


def _terminated(s: ContainerStatus, id: str) -> Obj:
    ended: Obj = {"exitCode": s.exit_code}
    if s.reason:
        ended["reason"] = s.reason
    if s.message:
        ended["message"] = s.message
    ended["startedAt"] = time_of(s.started_at)
    ended["finishedAt"] = time_of(s.finished_at)
    ended["containerID"] = id
    return ended


def _resources(s: ContainerStatus, spec: Obj, was: Obj | None, one: Obj) -> None:
    """`resources` is what is in force, `allocatedResources` what the node has granted."""
    stated = spec.get("resources") or {}
    now = {k: dict(v) for k, v in stated.items() if k in ("limits", "requests") and v}
    if s.state == "running" and s.resources is not None:
        for section, resource, value in _in_force(s.resources):
            if resource in now.get(section, ()) and not quantity.of(now[section][resource]).same(value):
                now[section][resource] = str(value)
    one["resources"] = now
    if "requests" in now:
        one["allocatedResources"] = dict(stated["requests"])


def _in_force(r: Any) -> list[tuple[str, str, quantity.Quantity]]:
    found: list[tuple[str, str, quantity.Quantity]] = []
    if r.cpu_quota > 0 and r.cpu_period > 0:
        milli = r.cpu_quota * 1000 // r.cpu_period
        if milli > MIN_QUOTA_MILLI:
            found.append(("limits", "cpu", quantity.from_milli(milli)))
    if r.cpu_shares > MIN_SHARES_MILLI:
        # Rounding of shares must not look like a change: only a real difference counts.
        found.append(("requests", "cpu", quantity.from_milli(-(-r.cpu_shares * 1000 // 1024))))
    if r.memory_limit_in_bytes > 0:
        found.append(("limits", "memory", quantity.from_value(r.memory_limit_in_bytes, "BinarySI")))
    return found


def _lost_init(c: Obj, pod: Obj, status: PodStatus, one: Obj) -> bool:
    """Init containers that are done: ended well, or removed after the pod got past them."""
    s = status.find(c["name"])
    if s is not None:
        return s.state == "exited" and s.exit_code == 0 and not p.is_sidecar(c)
    if any_regular_created(pod, status) and not p.is_sidecar(c) and "waiting" in one["state"]:
        one["state"] = {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "message": "Unable to get init container status from container runtime and pod has been "
                "initialized, treat it as exited normally",
                "startedAt": None,
                "finishedAt": None,
            }
        }
        return True
    return False


def _waiting(c: Obj, pod: Obj, status: PodStatus, one: Obj, reason: Reason) -> None:
    """A container that will be started again waits, and says for what."""
    if not should_restart(c, pod, status):
        return
    why = reason(c["name"])
    if why is None:
        return
    if "terminated" in one["state"]:
        one["lastState"] = one["state"]
    one["state"] = {"waiting": {"reason": why.reason, **({"message": why.message} if why.message else {})}}
