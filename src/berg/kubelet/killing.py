"""Ending containers: preStop, then the stop signal, then KILL, within the grace period; and whole pods.

Sidecars end after the regular containers, in the reverse of the order in which they started; what they wait is
taken from their own grace period.

Source: pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer, kuberuntime_termination_order.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson

from berg.kubelet import lifecycle
from berg.kubelet import pod as p
from berg.kubelet.runtime_status import ContainerStatus, PodStatus
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, Code, CRIError

log = logging.getLogger(__name__)

MINIMUM_GRACE_S = 2


def grace_period(pod: Obj, c: Obj, reason: str) -> int:
    """`reason` startupProbe or livenessProbe: that probe may have a period of its own."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        return int(deletion)
    stated = pod["spec"].get("terminationGracePeriodSeconds")
    if stated is None:
        return MINIMUM_GRACE_S
    own = (c.get(reason) or {}).get("terminationGracePeriodSeconds") if reason else None
    return int(stated if own is None else own)


class _Ordering:
    """Who must have ended before whom."""

    def __init__(self, pod: Obj, running: list[str]) -> None:
        self._ended = {name: asyncio.Event() for name in running}
        self._after: dict[str, list[str]] = {}
        later = [c["name"] for c in p.containers(pod) + p.ephemeral_containers(pod)]
        for c in reversed(p.init_containers(pod)):
            if p.is_sidecar(c):
                self._after[c["name"]] = list(later)
                later.append(c["name"])

    async def wait_for_turn(self, name: str) -> None:
        for other in self._after.get(name, ()):
            if other in self._ended:
                await self._ended[other].wait()

    def ended(self, name: str) -> None:
        if name in self._ended:
            self._ended[name].set()


class Killer:
    def __init__(self, cri: CRI, clock: Clock, event: Callable[[Obj, str, str, str], None]) -> None:
        self._cri = cri
        self._clock = clock
        self._event = event

    async def kill_pod(self, pod: Obj | None, status: PodStatus, grace_override_s: int | None) -> None:
        """Ends every container, then every sandbox. `pod` None: what the runtime remembers must do.

        Raises CRIError when something could not be stopped. May be cancelled and called again with a shorter time.
        """
        running = [c for c in status.containers if c.state in ("running", "unknown")]
        ordering = _Ordering(pod, [c.name for c in running]) if pod is not None and p.has_sidecar(pod) else None
        ip = status.ips[0] if status.ips else ""
        results = await asyncio.gather(
            *(self._kill_one(pod, status, c, grace_override_s, ordering, ip) for c in running), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for sandbox in status.sandboxes:
            try:
                await self._cri.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
            except CRIError as e:
                if e.code != Code.NOT_FOUND:
                    raise

    async def _kill_one(
        self,
        pod: Obj | None,
        status: PodStatus,
        s: ContainerStatus,
        override_s: int | None,
        ordering: _Ordering | None,
        ip: str,
    ) -> None:
        c = p.container(pod, s.name) if pod is not None else None
        if pod is None or c is None:
            pod, c = restore(status, s)
        await self._stop(pod, c, s.id, "", "", override_s, ordering, ip)

    async def kill_container(self, pod: Obj, id: str, name: str, message: str, reason: str) -> None:
        """Raises CRIError."""
        c = p.container(pod, name)
        if c is None:
            return
        await self._stop(pod, c, id, message, reason, None, None, "")

    async def _stop(
        self,
        pod: Obj,
        c: Obj,
        id: str,
        message: str,
        reason: str,
        override_s: int | None,
        ordering: _Ordering | None,
        ip: str,
    ) -> None:
        reference = p.container_reference(pod, c)
        self._event(reference, "Normal", "Killing", message or f"Stopping container {c['name']}")
        grace = grace_period(pod, c, reason) if override_s is None else override_s
        end = self._clock.monotonic() + grace
        hook = (c.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            await self._within(grace, self._pre_stop(pod, c, id, hook, ip))
        if ordering is not None and (left := end - self._clock.monotonic()) > 0:
            await self._within(left, ordering.wait_for_turn(c["name"]))
        left_s = max(int(end - self._clock.monotonic()), MINIMUM_GRACE_S)
        try:
            await self._cri.stop_container(pb.StopContainerRequest(container_id=id, timeout=left_s))
        except CRIError as e:
            if e.code != Code.NOT_FOUND:
                raise
        if ordering is not None:
            ordering.ended(c["name"])

    async def _within(self, seconds: float, work: Any) -> None:
        """Runs `work` for at most `seconds` of our clock."""
        task = asyncio.ensure_future(work)
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for t in (task, timer):
                t.cancel()
            await asyncio.gather(task, timer, return_exceptions=True)

    async def _pre_stop(self, pod: Obj, c: Obj, id: str, hook: Obj, ip: str) -> None:
        try:
            await lifecycle.run(self._cri, self._clock, pod, c, id, hook, ip, self._event)
        except lifecycle.HookError as e:
            log.info("preStop of %s in %s: %s", c["name"], p.show(pod), e)
            self._event(p.container_reference(pod, c), "Warning", "FailedPreStopHook", "PreStopHook failed")


def restore(status: PodStatus, s: ContainerStatus) -> tuple[Obj, Obj]:
    """Pod and container as far as the container's own labels and annotations tell."""
    a = s.annotations
    c: Obj = {"name": s.name}
    if a.get(p.ANNOTATION_PRE_STOP):
        c["lifecycle"] = {"preStop": orjson.loads(a[p.ANNOTATION_PRE_STOP])}
    if a.get(p.ANNOTATION_PORTS):
        c["ports"] = orjson.loads(a[p.ANNOTATION_PORTS])
    meta: Obj = {"name": status.name, "namespace": status.namespace, "uid": status.uid}
    pod: Obj = {"metadata": meta, "spec": {"containers": [c]}}
    if a.get(p.ANNOTATION_POD_DELETION_GRACE):
        pod["metadata"]["deletionGracePeriodSeconds"] = int(a[p.ANNOTATION_POD_DELETION_GRACE])
    if a.get(p.ANNOTATION_POD_TERMINATION_GRACE):
        pod["spec"]["terminationGracePeriodSeconds"] = int(a[p.ANNOTATION_POD_TERMINATION_GRACE])
    return pod, c
