"""The steps of a pod's life on this node: sync, terminating, terminated. What the pod workers call.

Each step starts from what the runtime says now, writes the status it generates, and does what is to be done; it
may be called any number of times.

Source: pkg/kubelet/kubelet.go SyncPod, SyncTerminatingPod, SyncTerminatedPod.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from berg.kubelet import gc, pod_status, runtime_status
from berg.kubelet import pod as p
from berg.kubelet.cgroups import CgroupManager
from berg.kubelet.config import KubeletConfig
from berg.kubelet.kuberuntime import RuntimeManager
from berg.kubelet.objects import ObjectCache
from berg.kubelet.pod_status import Inputs
from berg.kubelet.probes.manager import ProbeManager
from berg.kubelet.runtime_state import RuntimeState
from berg.kubelet.runtime_status import PodStatus
from berg.kubelet.start_errors import SyncError
from berg.kubelet.status_manager import StatusManager
from berg.kubelet.volumes.content import VolumeError
from berg.kubelet.volumes.manager import VolumeManager
from berg.kubelet.volumes.tokens import TokenManager
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end
from berg.runtime.cri import CRI, CRIError

log = logging.getLogger(__name__)

NETWORK_NOT_READY = "network is not ready"
TELL_AFTER_S = 0.3


@dataclass(slots=True)
class Parts:
    """The rooms that a sync goes through."""

    cri: CRI
    clock: Clock
    config: KubeletConfig
    state: RuntimeState
    runtime: RuntimeManager
    statuses: StatusManager
    probes: ProbeManager
    volumes: VolumeManager
    objects: ObjectCache | None
    tokens: TokenManager | None
    cgroups: CgroupManager
    event: Callable[[Obj, str, str, str], None]
    node_ips: list[str]


class PodSyncer:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.in_runtime: set[str] = set()
        """UIDs that the runtime may know; for all others there is no need to ask."""
        self.mirror: Callable[[Obj], Awaitable[None]] | None = None
        self.is_terminating: Callable[[str], bool] = lambda uid: False
        self.blocked_by_name: Callable[[Obj], bool] = lambda pod: False
        self.allocate: Callable[[Obj], Obj] = lambda pod: pod
        """Grants a change of resources if it can be; answers with the pod as it is allocated."""
        self.settle: Callable[[Obj, bool, str], None] = lambda pod, in_force, error: None
        self.conditions: Callable[[Obj], list[Obj]] = lambda pod: []
        self.wake: Callable[[str], None] = lambda uid: None
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}

    # -- syncing

    async def sync(self, pod: Obj) -> bool:
        parts, uid = self.parts, p.uid(pod)
        if self.blocked_by_name(pod):
            raise SyncError(f"an earlier static pod {p.full_name(pod)} has not ended yet", transient=True)
        runtime = await self._runtime(uid)
        pod = self.allocate(pod)
        status = self._say(pod, runtime)
        if p.is_terminal_phase(status["phase"]) or self._past_deadline(pod, status):
            return True
        if (problem := parts.state.network_error) is not None and not p.host_network(pod):
            message = f"{NETWORK_NOT_READY}: {problem}"
            parts.event(pod, "Warning", "NetworkNotReady", message)
            raise SyncError(message, transient=True)
        if parts.objects is not None:
            parts.objects.register(pod)
        self._cgroups(pod)
        if p.is_static(pod) and self.mirror is not None:
            await self.mirror(pod)
        volumes = await self._volumes(pod)
        secrets = await self._pull_secrets(pod)
        parts.probes.add_pod(pod)
        self.in_runtime.add(uid)
        changed = True
        telling = asyncio.ensure_future(self._keep_telling(pod))
        try:
            changed = await parts.runtime.sync_pod(pod, runtime, volumes, secrets)
        finally:
            telling.cancel()
            if changed:
                runtime = await self._runtime(uid)
                in_force = not parts.runtime.resizer.resizing(pod, runtime)
                self.settle(pod, in_force, parts.runtime.resizer.errors.get(uid, ""))
                self._say(pod, runtime)
        await gc.prune(parts.cri, runtime, parts.config)
        return False

    async def _keep_telling(self, pod: Obj) -> None:
        """While a sync takes long (an image is pulled, a hook runs), what happens meanwhile is said all the same."""
        uid = p.uid(pod)
        changed = self._changed.setdefault(uid, asyncio.Event())
        await self.parts.clock.sleep(TELL_AFTER_S)
        while True:
            changed.clear()
            try:
                self._say(pod, await self._runtime(uid))
            except CRIError as e:
                log.info("status of %s: %s", p.show(pod), e)
            await changed.wait()

    def runtime_changed(self, uid: str) -> None:
        if uid in self._changed:
            self._changed[uid].set()

    async def _runtime(self, uid: str) -> PodStatus:
        if uid not in self.in_runtime:
            return PodStatus(uid)
        return await runtime_status.read(self.parts.cri, uid)

    def generate(self, pod: Obj, runtime: PodStatus, *, terminal: bool = False) -> Obj:
        parts = self.parts
        old = parts.statuses.get(p.uid(pod)) or pod.get("status") or {}
        inputs = Inputs(
            runtime_name=parts.state.name,
            node_ips=parts.node_ips,
            reason=parts.runtime.reasons.get,
            probe=parts.probes.result,
            extra_conditions=[] if terminal else self.conditions(pod),
        )
        return pod_status.generate(pod, runtime, old, inputs, terminal=terminal)

    def _say(
        self, pod: Obj, runtime: PodStatus, *, terminal: bool = False, change: Callable[[Obj], Obj] | None = None
    ) -> Obj:
        status = self.generate(pod, runtime, terminal=terminal)
        if change is not None:
            status = change(status)
        self.parts.statuses.set(pod, status)
        said = self.parts.statuses.get(p.uid(pod)) or status
        if not runtime.ips:
            runtime.ips = [x["ip"] for x in said.get("podIPs") or ()] if not terminal else []
        return said

    def _past_deadline(self, pod: Obj, status: Obj) -> bool:
        """activeDeadlineSeconds: a pod that has run too long fails."""
        seconds = pod["spec"].get("activeDeadlineSeconds")
        start = status.get("startTime")
        if seconds is None or start is None:
            return False
        uid = p.uid(pod)
        left = seconds - (self.parts.clock.now() - parse_rfc3339(start)).total_seconds()
        if left > 0:
            if uid not in self._timers:
                self._timers[uid] = asyncio.ensure_future(self._wake_at(uid, left))
            return False
        message = "Pod was active on the node longer than the specified deadline"
        self.parts.statuses.update(
            uid, lambda s: {**s, "phase": "Failed", "reason": "DeadlineExceeded", "message": message}
        )
        self.parts.event(pod, "Normal", "DeadlineExceeded", message)
        return True

    async def _wake_at(self, uid: str, seconds: float) -> None:
        await self.parts.clock.sleep(seconds)
        self._timers.pop(uid, None)
        self.wake(uid)

    def _cgroups(self, pod: Obj) -> None:
        cgroups = self.parts.cgroups
        try:
            if not cgroups.exists(pod):
                cgroups.ensure(pod)
        except OSError as e:
            self.parts.event(pod, "Warning", "FailedCreatePodContainer", f"unable to ensure pod container exists: {e}")
            raise SyncError(f"cgroups of {p.show(pod)}: {e}") from e

    async def _volumes(self, pod: Obj):  # type: ignore[no-untyped-def]
        parts = self.parts
        try:
            parts.config.pod_dir(p.uid(pod)).mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as e:
            parts.event(pod, "Warning", "Failed", f"error making pod data directories: {e}")
            raise SyncError(str(e)) from e
        try:
            return await parts.volumes.mount(pod)
        except VolumeError as e:
            parts.event(pod, "Warning", "FailedMount", f"Unable to attach or mount volumes: {e}")
            raise SyncError(str(e)) from e

    async def _pull_secrets(self, pod: Obj) -> list[Obj]:
        """Those that are there; a missing one is told, and the pull may do without."""
        found, missing = [], []
        for ref in pod["spec"].get("imagePullSecrets") or ():
            if not ref.get("name") or self.parts.objects is None:
                continue
            try:
                found.append(await self.parts.objects.get("Secret", p.namespace(pod), ref["name"]))
            except ApiError:
                missing.append(ref["name"])
        if missing:
            self.parts.event(
                pod,
                "Warning",
                "FailedToRetrieveImagePullSecret",
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed.",
            )
        return found

    # -- the end

    async def sync_terminating(
        self, pod: Obj, grace_override_s: int | None, change: Callable[[Obj], Obj] | None
    ) -> None:
        parts, uid = self.parts, p.uid(pod)
        runtime = await self._runtime(uid)
        self._say(pod, runtime, change=change)
        parts.probes.stop_liveness_and_startup(uid)
        ips = list(runtime.ips)
        if not runtime.empty:
            try:
                await parts.runtime.killer.kill_pod(pod, runtime, grace_override_s)
            except CRIError as e:
                parts.event(pod, "Warning", "FailedKillPod", f"error killing pod: {e}")
                raise
        parts.probes.remove_pod(uid)
        stopped = await self._runtime(uid)
        if running := stopped.running():
            ids = [f"{parts.state.name}://{c.id}" for c in running]
            raise SyncError(f"detected running containers after a successful KillPod, CRI violation: {ids}")
        stopped.ips = ips
        self._say(pod, stopped, terminal=True)

    async def sync_terminated(self, pod: Obj) -> None:
        parts, uid = self.parts, p.uid(pod)
        self._say(pod, await self._runtime(uid), terminal=True)
        await parts.volumes.unmount(uid)
        if parts.objects is not None:
            parts.objects.unregister(uid)
        if parts.tokens is not None:
            parts.tokens.forget(uid)
        parts.cgroups.remove(uid)
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        parts.statuses.finish(pod)

    async def sync_terminating_runtime(self, uid: str) -> None:
        parts = self.parts
        self.in_runtime.add(uid)
        runtime = await self._runtime(uid)
        await parts.runtime.killer.kill_pod(None, runtime, 1)
        await self.clean_up(uid, runtime)

    async def clean_up(self, uid: str, runtime: PodStatus | None = None) -> None:
        """Nothing of the pod is wanted any more: its containers, logs, files, cgroups."""
        parts = self.parts
        runtime = runtime or await self._runtime(uid)
        await parts.runtime.remove_pod(runtime)
        await parts.volumes.unmount(uid)
        parts.cgroups.remove(uid)
        await gc.remove_pod_logs(parts.config, uid)
        parts.runtime.forget(uid)
        self._changed.pop(uid, None)
        self.in_runtime.discard(uid)

    async def stop(self) -> None:
        await end(*self._timers.values())
