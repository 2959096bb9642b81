"""Probe workers: one task for each (pod, container, probe type), which follows the container through its restarts.

A result counts when it has come `failureThreshold` or `successThreshold` times in a row; then `changed` is called
with the pod's UID, and whoever makes decisions asks `result`. Before the first result a container is not ready,
not started, and alive.

A worker waits without polling until its container runs: `status_changed` tells it of every status of its pod.

Source: pkg/kubelet/prober/worker.go, prober_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import NamedTuple

from berg.kubelet import pod as p
from berg.kubelet.probes import prober
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.status import Obj
from berg.runtime.cri import CRI

log = logging.getLogger(__name__)

PROBES = {"startup": "startupProbe", "readiness": "readinessProbe", "liveness": "livenessProbe"}
WORDS = {"startup": "Startup", "readiness": "Readiness", "liveness": "Liveness"}


class Key(NamedTuple):
    uid: str
    container: str
    type: str


def find_status(status: Obj, name: str) -> Obj | None:
    for key in ("containerStatuses", "initContainerStatuses"):
        for s in status.get(key) or ():
            if s["name"] == name:
                return s
    return None


class ProbeManager:
    def __init__(
        self,
        cri: CRI,
        clock: Clock,
        event: Callable[[Obj, str, str, str], None],
        changed: Callable[[str], None],
    ) -> None:
        self._cri = cri
        self._clock = clock
        self._event = event
        self._changed = changed
        self._results: dict[tuple[str, str], bool] = {}  # (type, container id)
        self._workers: dict[Key, _Worker] = {}
        self._statuses: dict[str, Obj] = {}
        self._adopted: set[str] = set()
        self.counts: dict[tuple[str, str, str, str, str], int] = {}
        """(type, container, pod, namespace, successful|failed|unknown) → how often, for /metrics/probes."""

    def result(self, type: str, container_id: str) -> bool | None:
        return self._results.get((type, container_id))

    def add_pod(self, pod: Obj) -> None:
        """Starts the workers of what has probes; again and again without harm."""
        for c in p.containers(pod) + [c for c in p.init_containers(pod) if p.is_sidecar(c)]:
            for type, field in PROBES.items():
                key = Key(p.uid(pod), c["name"], type)
                if c.get(field) and key not in self._workers:
                    self._workers[key] = _Worker(self, key, pod, c, c[field])

    def adopt(self, pod: Obj) -> None:
        """What was ready before the kubelet restarted stays so until a probe says otherwise."""
        self._adopted.add(p.uid(pod))
        for key in ("containerStatuses", "initContainerStatuses"):
            for s in (pod.get("status") or {}).get(key) or ():
                id = (s.get("containerID") or "").partition("://")[2]
                if id and "running" in (s.get("state") or {}):
                    if s.get("started"):
                        self._results["startup", id] = True
                    if s.get("ready"):
                        self._results["readiness", id] = True

    def status_changed(self, pod: Obj, status: Obj) -> None:
        uid = p.uid(pod)
        self._statuses[uid] = status
        for key, worker in self._workers.items():
            if key.uid == uid:
                worker.pod = pod
                worker.wake()

    def stop_liveness_and_startup(self, uid: str) -> None:
        for key in [k for k in self._workers if k.uid == uid and k.type != "readiness"]:
            self._workers.pop(key).stop()

    def remove_pod(self, uid: str) -> None:
        for key in [k for k in self._workers if k.uid == uid]:
            self._workers.pop(key).stop()
        self._statuses.pop(uid, None)
        self._adopted.discard(uid)

    async def stop(self) -> None:
        workers = list(self._workers.values())
        self._workers.clear()
        for w in workers:
            w.stop()
        await asyncio.gather(*(w.task for w in workers), return_exceptions=True)


class _Worker:
    def __init__(self, manager: ProbeManager, key: Key, pod: Obj, c: Obj, spec: Obj) -> None:
        self.manager = manager
        self.key = key
        self.pod = pod
        self.c = c
        self.spec = spec
        self._id = ""
        self._on_hold = False
        self._last: bool | None = None
        self._run_length = 0
        self._wake = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self.task.cancel()
        self.manager._results.pop((self.key.type, self._id), None)

    def _set(self, result: bool | None) -> None:
        results, key = self.manager._results, (self.key.type, self._id)
        if results.get(key) == result:
            return
        if result is None:
            results.pop(key, None)
        else:
            results[key] = result
        self.manager._changed(self.key.uid)

    async def _run(self) -> None:
        period = self.spec.get("periodSeconds") or 10
        if self.key.uid in self.manager._adopted:
            # After a restart of the kubelet not all probes of the node at the same moment.
            await self.manager._clock.sleep(random.random() * period)
        while True:
            self._wake.clear()
            try:
                pause = await self._step(period)
            except Exception:
                log.exception("probe of %s", p.show(self.pod))
                pause = period
            await self._wait(pause)

    async def _wait(self, pause: float | None) -> None:
        """None: until the pod's status changes. While probing, changes of status do not shorten the period."""
        if pause is None:
            await self._wake.wait()
        else:
            await self.manager._clock.sleep(pause)

    async def _step(self, period: float) -> float | None:
        status = self.manager._statuses.get(self.key.uid)
        s = find_status(status, self.key.container) if status else None
        if s is None or not s.get("containerID"):
            return None
        id = s["containerID"].partition("://")[2]
        if id != self._id:
            self.manager._results.pop((self.key.type, self._id), None)
            self._id, self._on_hold, self._last, self._run_length = id, False, None, 0
            if self.key.type == "liveness":
                self.manager._results.setdefault((self.key.type, id), True)
        if self._on_hold:
            return None
        running = s["state"].get("running")
        if running is None:
            self._set(False)
            return None
        if p.deletion_requested(self.pod) and self.key.type != "readiness":
            self._set(True)
            return None
        age = (self.manager._clock.now() - parse_rfc3339(running["startedAt"])).total_seconds()
        delay = self.spec.get("initialDelaySeconds") or 0
        if age < delay:
            return max(delay - age, 0.01)
        if bool(s.get("started")) == (self.key.type == "startup"):
            return None  # the others wait for startup; startup is done when it has succeeded
        await self._probe(status or {})
        return None if self._on_hold else period

    async def _probe(self, status: Obj) -> None:
        result = await prober.run(self.manager._cri, self.spec, self.c, self._id, status.get("podIP") or "")
        self._count("unknown" if result.error else "successful" if result.ok else "failed")
        reference = p.container_reference(self.pod, self.c)
        words = WORDS[self.key.type]
        if result.error:
            message = f"{words} probe errored and resulted in Unknown state: {result.error}"
            self.manager._event(reference, "Warning", "Unhealthy", message)
            return
        if result.warning:
            self.manager._event(reference, "Warning", "ProbeWarning", f"{words} probe warning: {result.output}")
        elif not result.ok:
            self.manager._event(reference, "Warning", "Unhealthy", f"{words} probe failed: {result.output}")
        if self._last == result.ok:
            self._run_length += 1
        else:
            self._last, self._run_length = result.ok, 1
        threshold = self.spec.get("successThreshold" if result.ok else "failureThreshold") or (1 if result.ok else 3)
        if self._run_length < threshold:
            return
        if (self.key.type == "liveness" and not result.ok) or self.key.type == "startup":
            self._on_hold = True  # until there is a new container
            self._run_length = 0
        self._set(result.ok)

    def _count(self, outcome: str) -> None:
        key = (WORDS[self.key.type], self.key.container, p.name(self.pod), p.namespace(self.pod), outcome)
        self.manager.counts[key] = self.manager.counts.get(key, 0) + 1
