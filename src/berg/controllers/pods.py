"""Pods as their controllers see them: which count, which are ready and available, which go first; and making and
deleting them with the events that users look for.

Source: pkg/controller/controller_utils.go, pkg/api/v1/pod/util.go.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from berg.client.events import EventRecorder
from berg.client.rest import Client
from berg.controllers.objects import namespace_is_terminating, time_of
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
BURST = 500


def phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or ""


def is_finished(pod: Obj) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    return not is_finished(pod) and "deletionTimestamp" not in pod["metadata"]


def is_terminating(pod: Obj) -> bool:
    return not is_finished(pod) and "deletionTimestamp" in pod["metadata"]


def condition(pod: Obj, type: str) -> Obj | None:
    for c in (pod.get("status") or {}).get("conditions") or ():
        if c["type"] == type:
            return c
    return None


def is_ready(pod: Obj) -> bool:
    c = condition(pod, "Ready")
    return c is not None and c.get("status") == "True"


def available_in(pod: Obj, min_ready_s: int, now: datetime) -> float | None:
    """Seconds until the pod counts as available: 0 when it does, None when it is not ready."""
    c = condition(pod, "Ready")
    if c is None or c.get("status") != "True":
        return None
    if not min_ready_s:
        return 0.0
    since = time_of(c.get("lastTransitionTime"))
    if since is None:
        return None
    return max(0.0, min_ready_s - (now - since).total_seconds())


def is_available(pod: Obj, min_ready_s: int, now: datetime) -> bool:
    return available_in(pod, min_ready_s, now) == 0.0


def restarts(pod: Obj) -> int:
    status = pod.get("status") or {}
    total = sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or ())
    return total + sum(c.get("restartCount", 0) for c in status.get("initContainerStatuses") or ())


def _age_rank(text: str | None, now: datetime) -> float:
    """Ages are compared by their order of magnitude, so that the choice among peers is not always the youngest."""
    at = time_of(text)
    seconds = (now - at).total_seconds() if at else 0.0
    return math.floor(math.log2(seconds * 1e9)) if seconds > 0 else -1.0


def victims(pods: Sequence[Obj], count: int, related: Sequence[Obj], now: datetime) -> list[Obj]:
    """The `count` of `pods` to delete first; `related` are the pods whose sharing of a node counts."""
    if count >= len(pods):
        return list(pods)
    on_node: dict[str, int] = {}
    for pod in related:
        if is_active(pod) and (node := pod["spec"].get("nodeName")):
            on_node[node] = on_node.get(node, 0) + 1

    def order(pod: Obj) -> tuple[Any, ...]:
        node = pod["spec"].get("nodeName") or ""
        ready = condition(pod, "Ready")
        is_up = ready is not None and ready.get("status") == "True"
        try:
            cost = int(meta.annotations(pod).get(DELETION_COST, "0"))
        except ValueError:
            cost = 0
        return (
            bool(node),
            {"Pending": 0, "Unknown": 1, "Running": 2}.get(phase(pod), 0),
            is_up,
            cost,
            -on_node.get(node, 0),
            _age_rank(ready.get("lastTransitionTime"), now) if is_up and ready else 0.0,
            -restarts(pod),
            _age_rank(pod["metadata"].get("creationTimestamp"), now),
            pod["metadata"]["uid"],
        )

    return sorted(pods, key=order)[:count]


def from_template(template: Obj, owner: Obj, ref: Obj) -> Obj:
    """A pod of `owner`'s template; its name is the server's choice."""
    md = template.get("metadata") or {}
    made: Obj = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(md.get("labels") or {}),
        "annotations": dict(md.get("annotations") or {}),
        "ownerReferences": [ref],
    }
    if md.get("finalizers"):
        made["finalizers"] = list(md["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template.get("spec") or {}}


class PodControl:
    """Makes and deletes pods for an owner, which the events are about."""

    def __init__(self, client: Client, recorder: Callable[[], EventRecorder]) -> None:
        self._client, self._recorder = client, recorder
        self.resource = resource("pods")

    async def create(self, owner: Obj, pod: Obj) -> Obj:
        try:
            made = await self._client.create(self.resource, pod)
        except ApiError as e:
            if not namespace_is_terminating(e):
                self._recorder().event(owner, "Warning", "FailedCreate", f"Error creating: {e.message}")
            raise
        self._recorder().event(owner, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def delete(self, owner: Obj, pod: Obj) -> None:
        md = pod["metadata"]
        try:
            await self._client.delete(self.resource, md["namespace"], md["name"], uid=md["uid"])
        except ApiError as e:
            if e.code not in (404, 409):
                self._recorder().event(owner, "Warning", "FailedDelete", f"Error deleting: {e.message}")
            raise
        self._recorder().event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {md['name']}")


async def slow_start(count: int, work: Callable[[int], Awaitable[Any]], *, initial: int = 1) -> int:
    """Does `work(i)` for i in 0..count in batches that double: what fails for all fails once, not `count` times.

    Returns how many succeeded; raises the first error of the batch that failed, with that number as `.done`.
    """
    done, size = 0, min(count, initial)
    while size > 0:
        results = await asyncio.gather(*(work(i) for i in range(done, done + size)), return_exceptions=True)
        errors = [r for r in results if isinstance(r, BaseException)]
        done += size - len(errors)
        if errors:
            raise BatchFailed(done, errors[0])
        size = min(2 * size, count - done)
    return done


class BatchFailed(Exception):
    def __init__(self, done: int, error: BaseException) -> None:
        super().__init__(str(error))
        self.done, self.error = done, error
