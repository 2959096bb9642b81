"""A Deployment's status from its ReplicaSets: counts, Available, Progressing, ReplicaFailure. No I/O.

Source: pkg/controller/deployment/{sync,progress}.go.
"""

from __future__ import annotations

from datetime import datetime

from berg.controllers.deployment_rollout import available, max_unavailable, total
from berg.controllers.objects import (
    conditions_of,
    find_condition,
    put_condition,
    replicas,
    time_of,
    without_condition,
)
from berg.machinery.clock import rfc3339
from berg.machinery.status import Obj


def has_deadline(d: Obj) -> bool:
    seconds = d["spec"].get("progressDeadlineSeconds")
    return seconds is not None and seconds < 2**31 - 1


def condition(type: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    return {
        "type": type,
        "status": status,
        "lastUpdateTime": rfc3339(now),
        "lastTransitionTime": rfc3339(now),
        "reason": reason,
        "message": message,
    }


def _sum(sets: list[Obj], field: str) -> int:
    return sum((rs.get("status") or {}).get(field, 0) for rs in sets)


def status_of(d: Obj, new: Obj | None, old: list[Obj], now: datetime) -> Obj:
    """Counts and availability; what was said about progress stays."""
    every = [*old, new] if new is not None else list(old)
    ready_enough = available(every) >= replicas(d) - max_unavailable(d)
    if ready_enough:
        text = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        text = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    old_status = d.get("status") or {}
    status: Obj = {
        "observedGeneration": d["metadata"].get("generation", 0),
        "replicas": _sum(every, "replicas"),
        "updatedReplicas": _sum([new], "replicas") if new is not None else 0,
        "readyReplicas": _sum(every, "readyReplicas"),
        "availableReplicas": available(every),
        "unavailableReplicas": max(0, total(every) - available(every)),
        "conditions": put_condition(conditions_of(d), condition("Available", *text, now)),
        "terminatingReplicas": _sum(every, "terminatingReplicas"),
    }
    if "collisionCount" in old_status:
        status["collisionCount"] = old_status["collisionCount"]
    return status


def is_complete(d: Obj, status: Obj) -> bool:
    wanted = replicas(d)
    return status.get("updatedReplicas", 0) == status.get("replicas", 0) == status.get(
        "availableReplicas", 0
    ) == wanted and status.get("observedGeneration", 0) >= d["metadata"].get("generation", 0)


def _progressed(before: Obj, after: Obj) -> bool:
    def old(s: Obj) -> int:
        return s.get("replicas", 0) - s.get("updatedReplicas", 0)

    grew = any(after.get(f, 0) > before.get(f, 0) for f in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    return grew or old(after) < old(before)


def _timed_out(d: Obj, conditions: list[Obj], now: datetime) -> bool:
    c = find_condition(conditions, "Progressing")
    if c is None or c.get("reason") == "NewReplicaSetAvailable":
        return False
    if c.get("reason") == "ProgressDeadlineExceeded":
        return True
    since = time_of(c.get("lastUpdateTime"))
    return since is not None and (now - since).total_seconds() > d["spec"]["progressDeadlineSeconds"]


def rollout_status(d: Obj, new: Obj | None, old: list[Obj], now: datetime) -> Obj:
    """`status_of`, and how the rollout is getting on."""
    status = status_of(d, new, old, now)
    conditions: list[Obj] = status["conditions"]
    who = f'ReplicaSet "{new["metadata"]["name"]}"' if new is not None else f'Deployment "{d["metadata"]["name"]}"'
    current = find_condition(conditions, "Progressing")
    if not has_deadline(d):
        conditions = without_condition(conditions, "Progressing")
    else:
        done = current is not None and current.get("reason") == "NewReplicaSetAvailable"
        if not (done and status["replicas"] == status["updatedReplicas"]):
            if is_complete(d, status):
                text = f"{who} has successfully progressed."
                c = condition("Progressing", "True", "NewReplicaSetAvailable", text, now)
                conditions = put_condition(conditions, c)
            elif _progressed(d.get("status") or {}, status):
                c = condition("Progressing", "True", "ReplicaSetUpdated", f"{who} is progressing.", now)
                if current is not None and current["status"] == "True":
                    c["lastTransitionTime"] = current.get("lastTransitionTime")
                # Put anew even with the same reason: its lastUpdateTime is what the deadline counts from.
                conditions = [*without_condition(conditions, "Progressing"), c]
            elif _timed_out(d, conditions, now):
                text = f"{who} has timed out progressing."
                c = condition("Progressing", "False", "ProgressDeadlineExceeded", text, now)
                conditions = put_condition(conditions, c)
    failures = [c for rs in ([new] if new else []) + old for c in conditions_of(rs) if c["type"] == "ReplicaFailure"]
    if failures:
        f = failures[0]
        failure = {**f, "lastUpdateTime": f.get("lastTransitionTime")}
        conditions = put_condition(conditions, failure)
    else:
        conditions = without_condition(conditions, "ReplicaFailure")
    return {**status, "conditions": conditions}


def check_in(d: Obj, status: Obj, now: datetime) -> float | None:
    """Seconds until the deadline for progress passes, if it is still running."""
    c = find_condition(status["conditions"], "Progressing")
    if not has_deadline(d) or c is None:
        return None
    if is_complete(d, status) or c.get("reason") == "ProgressDeadlineExceeded" or d["spec"].get("paused"):
        return None
    since = time_of(c.get("lastUpdateTime")) or now
    return max(0.0, d["spec"]["progressDeadlineSeconds"] - (now - since).total_seconds()) + 1
