"""Writes pod statuses to the API: at once when something changed, never twice the same, one request per pod at a time.

`set` takes what was generated, gives conditions their times, and wakes the pod's writer. While a request is on its
way, later statuses replace each other and the newest goes next. A pod that has been told to end is deleted from
the API (grace period 0) once its worker says that nothing is left of it, after its last status has been written.

Source: pkg/kubelet/status/status_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from berg.client.rest import Client
from berg.kubelet import pod as p
from berg.kubelet import pod_end
from berg.machinery.clock import Clock, rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

RETRY_S = 1.0
MAX_RETRY_S = 10.0


@dataclass(slots=True)
class _Entry:
    pod: Obj
    status: Obj
    written: Obj | None = None
    """The status as the API had it last."""
    version: int = 0
    done: int = 0
    written_version: str = ""
    """The pod's resourceVersion that `written` came with."""
    unstored: Obj | None = None
    """What the API did not keep of what was sent: to send it again would be vain."""
    finished: bool = False
    """Nothing of the pod is left; if its deletion was asked for it may go now."""
    task: asyncio.Task[None] | None = None
    wake: asyncio.Event | None = None


class StatusManager:
    def __init__(self, client: Client | None, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self.target: Callable[[Obj], Obj | None] = lambda pod: pod
        """Pod → the object in the API that shows it: itself, a static pod's mirror, or None."""
        self.on_status: Callable[[Obj, Obj], None] = lambda pod, status: None

    def get(self, uid: str) -> Obj | None:
        entry = self._entries.get(uid)
        return entry.status if entry else None

    def set(self, pod: Obj, status: Obj) -> bool:
        """True when it differs from what was said before."""
        uid = p.uid(pod)
        entry = self._entries.get(uid)
        old = entry.status if entry else (pod.get("status") or {})
        status = self._timed(status, old)
        if entry is None:
            entry = self._entries[uid] = _Entry(pod, status)
            entry.written = None if p.is_static(pod) else (pod.get("status") or {})
        elif status == entry.status:
            entry.pod = pod
            return False
        entry.pod, entry.status = pod, status
        entry.version += 1
        self.on_status(pod, status)
        self._kick(uid, entry)
        return True

    def update(self, uid: str, change: Callable[[Obj], Obj]) -> None:
        entry = self._entries.get(uid)
        if entry is not None:
            self.set(entry.pod, change(entry.status))

    def finish(self, pod: Obj) -> None:
        """The pod's worker is done with it."""
        uid = p.uid(pod)
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _Entry(pod, pod.get("status") or {}, pod.get("status") or {})
        entry.pod = pod
        entry.status = pod_end.final(pod, entry.status)
        entry.finished = True
        entry.version += 1
        self._kick(uid, entry)

    def seen(self, pod: Obj) -> None:
        """The API has a new version of the pod: a status that someone else changed is put right."""
        entry = self._entries.get(p.uid(pod))
        if entry is None:
            return
        entry.pod = pod
        if entry.written is not None and entry.done == entry.version and not _older(pod, entry.written_version):
            missing = diff(pod.get("status") or {}, entry.status)
            if missing and missing != entry.unstored:
                entry.written = pod.get("status") or {}
                entry.version += 1
                self._kick(p.uid(pod), entry)
        if entry.finished and p.deletion_requested(pod):
            entry.version += 1
            self._kick(p.uid(pod), entry)

    def mirror_changed(self, uid: str) -> None:
        """A static pod's mirror is new (or gone): it has to be told again."""
        entry = self._entries.get(uid)
        if entry is not None:
            entry.written = None
            entry.version += 1
            self._kick(uid, entry)

    def forget(self, uid: str) -> None:
        entry = self._entries.pop(uid, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    async def stop(self) -> None:
        tasks = [e.task for e in self._entries.values() if e.task is not None]
        await end(*tasks)

    # -- times

    def _timed(self, status: Obj, old: Obj) -> Obj:
        """A condition keeps its time until its status changes; a pod started when it was first seen."""
        now = rfc3339(self._clock.now())
        before = {c["type"]: c for c in old.get("conditions") or ()}
        conditions = []
        for c in status.get("conditions") or ():
            one = dict(c)
            was = before.get(c["type"])
            if was is not None and was.get("status") == c.get("status") and was.get("lastTransitionTime"):
                one["lastTransitionTime"] = was["lastTransitionTime"]
            else:
                one.setdefault("lastTransitionTime", now)
            one.setdefault("lastProbeTime", None)
            conditions.append(one)
        timed = {**status, "conditions": conditions}
        timed.setdefault("startTime", old.get("startTime") or now)
        return timed

    # -- writing

    def _kick(self, uid: str, entry: _Entry) -> None:
        if self._client is None:
            return
        if entry.task is None:
            entry.task = asyncio.ensure_future(self._write_all(uid, entry))

    async def _write_all(self, uid: str, entry: _Entry) -> None:
        delay = RETRY_S
        try:
            while entry.done != entry.version:
                version = entry.version
                try:
                    gone = await self._write(uid, entry)
                except ApiError as e:
                    log.info("status of %s: %s", p.show(entry.pod), e.message)
                    await self._clock.sleep(delay)
                    delay = min(delay * 2, MAX_RETRY_S)
                    continue
                delay = RETRY_S
                entry.done = version
                if gone:
                    return
        finally:
            entry.task = None

    async def _write(self, uid: str, entry: _Entry) -> bool:
        """True when the pod is not in the API any more."""
        assert self._client is not None
        target = self.target(entry.pod)
        if target is None:
            return False
        pods = resource("pods")
        where = (p.namespace(target), p.name(target))
        try:
            base = entry.written
            if base is None:
                base = target.get("status") or {}
            sent = entry.status
            patch = diff(base, sent)
            if patch:
                body: Obj = {"metadata": {"uid": p.uid(target)}, "status": patch}
                answer = await self._client.patch(pods, *where, body, type="strategic", subresource="status")
                entry.written = answer.get("status") or {}
                entry.written_version = answer["metadata"].get("resourceVersion") or ""
                entry.unstored = diff(entry.written, sent) or None
            if entry.finished and p.deletion_requested(entry.pod) and not p.is_mirror(target):
                await self._client.delete(pods, *where, grace_period_s=0, uid=p.uid(target))
                return True
        except ApiError as e:
            if e.code == 404 or (e.code == 409 and "uid" in e.message.lower()):
                return True  # gone, or another pod of that name
            raise
        return False


def _older(pod: Obj, version: str) -> bool:
    """Whether the watch is still behind what our own write was answered with."""
    seen = pod["metadata"].get("resourceVersion") or ""
    return bool(version) and seen.isdigit() and version.isdigit() and int(seen) <= int(version)


def diff(old: Obj, new: Obj) -> Obj:
    """A strategic merge patch of a PodStatus from `old` to `new`; empty when there is nothing to say.

    Conditions and addresses are merged by key on the server, so that what others wrote stays.
    """
    patch: Obj = {}
    for key, value in new.items():
        if key == "conditions":
            if changed := _conditions(old.get(key) or [], value or []):
                patch[key] = changed
        elif not _same(old.get(key), value):
            if key in ("podIPs", "hostIPs"):
                patch[key] = [*value, {"$patch": "replace"}] if key == "podIPs" else value
            else:
                patch[key] = value
    for key in old:
        if key not in new and key in _OWNED:
            patch[key] = None
    return patch


_OWNED = (
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "podIP",
    "podIPs",
    "reason",
    "resources",
    "allocatedResources",
)
_RESIZE = ("PodResizePending", "PodResizeInProgress")


def _conditions(old: list[Obj], new: list[Obj]) -> list[Obj]:
    before = {c["type"]: c for c in old}
    changed = []
    for c in new:
        was = before.get(c["type"])
        if not _same(was, c):
            # A merge keeps what is not named, so what is no more has to be taken away by name.
            changed.append({**{k: None for k in was or () if k not in c}, **c})
    types = {c["type"] for c in new}
    gone = [{"$patch": "delete", "type": t} for t in _RESIZE if t in before and t not in types]
    return changed + gone


def _same(a: Any, b: Any) -> bool:
    """Equal but for empty and absent fields, which the API does not tell apart."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_same(a.get(k), b.get(k)) for k in a.keys() | b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (not a and not b and a is not False and b is not False)
