"""Brings a pod's sandbox and containers to where `actions.compute` says, through CRI.

`sync_pod` is called with the pod's volumes already mounted. It starts what is to be started, records why
something could not be (the reason cache feeds the pod's status), and raises one `SyncError` when anything is to
be tried again. Cancelling it is safe at any time: a CRI call that changes something is always seen through.

While the sandbox is made, the images are already looked for; that is where pod start time goes.

Source: pkg/kubelet/kuberuntime/kuberuntime_manager.go SyncPod, kuberuntime_container.go startContainer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berg.kubelet import actions as act
from berg.kubelet import (
    container_config,
    dns,
    gc,
    killing,
    lifecycle,
    mounts,
    sandbox_config,
)
from berg.kubelet import pod as p
from berg.kubelet import start_errors as why
from berg.kubelet.backoff import Backoff
from berg.kubelet.config import KubeletConfig
from berg.kubelet.images import ImageManager
from berg.kubelet.logs import container_log_path, restart_count_by_logs
from berg.kubelet.resize import Resizer
from berg.kubelet.runtime_status import PodStatus, sandbox_status
from berg.kubelet.start_errors import ReasonCache, StartError, SyncError
from berg.kubelet.uninterrupted import uninterrupted
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, Code, CRIError

log = logging.getLogger(__name__)

Event = Callable[[Obj, str, str, str], None]


@dataclass(slots=True)
class Surroundings:
    """What the rest of the kubelet gives to the runtime part."""

    environment: Callable[[Obj, Obj, list[str]], Awaitable[dict[str, str]]]
    """(pod, container, pod IPs) → variables; raises EnvError."""
    probe: act.ProbeResult
    cgroup_parent: Callable[[Obj], str]
    runtime_handler: Callable[[Obj], Awaitable[str]]
    """Raises ValueError when the pod's RuntimeClass is not there."""
    memory_capacity: int = 0
    cgroup_v2: bool = False
    pod_limits: Callable[[Obj, bool], None] = lambda pod, widen: None
    """Sets the limits of the pod's cgroup; with True only where they become wider. Raises OSError."""


@dataclass(slots=True)
class _Sync:
    """One run of sync_pod."""

    pod: Obj
    status: PodStatus
    volumes: Mapping[str, mounts.MountedVolume]
    secrets: list[Obj]
    config: Any = None
    sandbox_id: str = ""
    handler: str = ""
    ips: list[str] = field(default_factory=list)
    images: dict[str, asyncio.Task[str]] = field(default_factory=dict)
    failures: list[StartError] = field(default_factory=list)
    did_something: bool = False


class RuntimeManager:
    def __init__(
        self,
        cri: CRI,
        clock: Clock,
        config: KubeletConfig,
        images: ImageManager,
        dns_configurer: dns.Configurer,
        event: Event,
        around: Surroundings,
    ) -> None:
        self.cri = cri
        self.clock = clock
        self.config = config
        self.images = images
        self.dns = dns_configurer
        self.event = event
        self.around = around
        self.reasons = ReasonCache()
        self.backoff = Backoff(10, config.crash_loop_back_off_max)
        self.killer = killing.Killer(cri, clock, event)
        self.resizer = Resizer(cri, config, around.memory_capacity, around.cgroup_v2, around.pod_limits)

    async def sync_pod(
        self, pod: Obj, status: PodStatus, volumes: Mapping[str, mounts.MountedVolume], secrets: list[Obj]
    ) -> bool:
        """True when something was changed in the runtime. Raises SyncError."""
        actions = act.compute(pod, status, self.around.probe)
        resizes = self.resizer.plan(pod, status, actions)
        if actions.nothing and resizes is None:
            return False
        run = _Sync(pod, status, volumes, secrets, ips=list(status.ips), sandbox_id=actions.sandbox_id)
        try:
            await self._kill(run, actions)
            if resizes is not None:
                await self.resizer.apply(pod, resizes)
            if not (actions.create_sandbox or actions.ephemeral or actions.init or actions.start):
                return True
            run.handler = await self._handler(pod)
            run.config = self._sandbox_config(pod, actions.attempt)
            self._look_for_images(run, actions)
            if actions.create_sandbox:
                await self._create_sandbox(run)
            await self._start(run, actions)
        finally:
            for task in run.images.values():
                task.cancel()
        if run.failures:
            times = [f.retry_at for f in run.failures]
            known = [t for t in times if t is not None]
            raise SyncError(
                "; ".join(str(f) for f in run.failures),
                retry_at=min(known) if len(known) == len(times) else None,
            )
        return True

    # -- in the order of the work

    async def _kill(self, run: _Sync, actions: act.PodActions) -> None:
        pod = run.pod
        if actions.create_sandbox and actions.sandbox_id:
            self.event(pod, "Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        try:
            if actions.kill_pod:
                if not run.status.empty:
                    await self.killer.kill_pod(pod, run.status, None)
                if actions.create_sandbox:
                    await self._remove_init_containers(run, keep=0)
            else:
                for id, kill in actions.kill.items():
                    await self.killer.kill_container(pod, id, kill.name, kill.message, kill.reason)
        except CRIError as e:
            raise SyncError(f"killing in pod {p.show(pod)}: {e}") from e
        if p.init_containers(pod):
            await self._remove_init_containers(run, keep=1)

    async def _remove_init_containers(self, run: _Sync, *, keep: int) -> None:
        names = {c["name"] for c in p.init_containers(run.pod)}
        kept: dict[str, int] = {}
        for s in run.status.containers:
            if s.name not in names or (keep and s.state not in ("exited", "unknown")):
                continue
            kept[s.name] = kept.get(s.name, 0) + 1
            if kept[s.name] > keep:
                try:
                    await uninterrupted(self.cri.remove_container(pb.RemoveContainerRequest(container_id=s.id)))
                except CRIError as e:
                    log.warning("init container %s of %s: %s", s.name, p.show(run.pod), e)

    async def _handler(self, pod: Obj) -> str:
        try:
            return await self.around.runtime_handler(pod)
        except ValueError as e:
            self.event(pod, "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {e}")
            raise SyncError(str(e)) from e

    def _sandbox_config(self, pod: Obj, attempt: int) -> Any:
        try:
            return sandbox_config.make(pod, attempt, self.config, self.dns.for_pod(pod), self.around.cgroup_parent(pod))
        except (ValueError, OSError) as e:
            message = f"Failed to create pod sandbox: {e}"
            self.event(pod, "Warning", "FailedCreatePodSandBox", message)
            raise SyncError(message) from e

    def _look_for_images(self, run: _Sync, actions: act.PodActions) -> None:
        """Of what is started now; the tasks are awaited when their container's turn comes."""
        for c in _chosen(run.pod, actions):
            if c["name"] not in run.images and not self._in_backoff(run, c):
                task = asyncio.ensure_future(self.images.ensure(run.pod, c, run.secrets, run.config, run.handler))
                task.add_done_callback(lambda t: t.cancelled() or t.exception())
                run.images[c["name"]] = task

    async def _create_sandbox(self, run: _Sync) -> None:
        pod = run.pod
        try:
            _make_directory(Path(run.config.log_directory))
            answer = await uninterrupted(
                self.cri.run_pod_sandbox(pb.RunPodSandboxRequest(config=run.config, runtime_handler=run.handler))
            )
            run.sandbox_id = answer.pod_sandbox_id
        except (CRIError, OSError) as e:
            self.event(pod, "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {e}")
            raise SyncError(f"failed to create a sandbox for pod {p.show(pod)}: {e}") from e
        try:
            found = await self.cri.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=run.sandbox_id))
        except CRIError as e:
            self.event(pod, "Warning", "FailedPodSandBoxStatus", f"Unable to get pod sandbox status: {e}")
            raise SyncError(str(e)) from e
        run.ips = sandbox_status(found.status).ips

    async def _start(self, run: _Sync, actions: act.PodActions) -> None:
        for i in actions.ephemeral:
            await self._try(run, p.ephemeral_containers(run.pod)[i])
        for i in actions.init:
            c = p.init_containers(run.pod)[i]
            if not await self._try(run, c) and not p.is_sidecar(c):
                return
        for i in actions.start:
            await self._try(run, p.containers(run.pod)[i])

    async def _try(self, run: _Sync, c: Obj) -> bool:
        try:
            self._check_backoff(run, c)
            await self._start_container(run, c)
        except StartError as e:
            self.reasons.set(p.uid(run.pod), c["name"], e)
            run.failures.append(e)
            return False
        self.reasons.set(p.uid(run.pod), c["name"], None)
        return True

    # -- crash loops

    def _backoff_key(self, pod: Obj, c: Obj) -> str:
        return f"{p.uid(pod)}_{c['name']}_{p.hash_container(c)}"

    def _last_exit(self, run: _Sync, c: Obj) -> float | None:
        found = next((s for s in run.status.containers if s.name == c["name"] and s.state == "exited"), None)
        return found.finished_at / 1e9 if found else None

    def _in_backoff(self, run: _Sync, c: Obj) -> bool:
        ended = self._last_exit(run, c)
        now = self.clock.now().timestamp()
        return ended is not None and self.backoff.waiting(self._backoff_key(run.pod, c), ended, now)

    def _check_backoff(self, run: _Sync, c: Obj) -> None:
        ended = self._last_exit(run, c)
        if ended is None:
            return
        key = self._backoff_key(run.pod, c)
        if self._in_backoff(run, c):
            delay = self.backoff.delay(key)
            self.event(
                p.container_reference(run.pod, c),
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {c['name']} in pod {p.show(run.pod)}",
            )
            raise StartError(
                why.CRASH_LOOP_BACK_OFF,
                f"back-off {go_seconds(delay)} restarting failed container={c['name']} pod={p.show(run.pod)}",
                retry_at=ended + delay,
            )
        self.backoff.next(key, ended)

    # -- one container

    async def _start_container(self, run: _Sync, c: Obj) -> None:
        pod, reference = run.pod, p.container_reference(run.pod, c)

        def failed(message: str) -> None:
            self.event(reference, "Warning", "Failed", f"Error: {message}")

        try:
            image = await self._image(run, c)
        except StartError as e:
            failed(e.reason)
            raise
        before = run.status.find(c["name"])
        logs = Path(run.config.log_directory) / c["name"]
        restarts = before.restart_count + 1 if before else restart_count_by_logs(logs)
        image_volumes = await self._image_volumes(run, c)
        try:
            config = await self._container_config(run, c, image, restarts, logs, image_volumes)
        except container_config.ConfigError as e:
            failed(str(e))
            raise StartError(why.CREATE_CONTAINER_CONFIG_ERROR, str(e)) from e
        try:
            request = pb.CreateContainerRequest(pod_sandbox_id=run.sandbox_id, config=config, sandbox_config=run.config)
            id = (await uninterrupted(self.cri.create_container(request))).container_id
        except CRIError as e:
            failed(e.message)
            raise StartError(why.CREATE_CONTAINER_ERROR, e.message) from e
        self.resizer.actuated(pod, c)
        self.event(reference, "Normal", "Created", "Container created")
        try:
            await uninterrupted(self.cri.start_container(pb.StartContainerRequest(container_id=id)))
        except CRIError as e:
            failed(e.message)
            raise StartError(why.RUN_CONTAINER_ERROR, e.message) from e
        self.event(reference, "Normal", "Started", "Container started")
        self._link_log(pod, c, id, Path(run.config.log_directory) / config.log_path)
        if hook := (c.get("lifecycle") or {}).get("postStart"):
            await self._post_start(run, c, id, hook)

    async def _image(self, run: _Sync, c: Obj) -> str:
        task = run.images.pop(c["name"], None)
        if task is None:
            return await self.images.ensure(run.pod, c, run.secrets, run.config, run.handler)
        try:
            return await task
        finally:
            task.cancel()

    async def _image_volumes(self, run: _Sync, c: Obj) -> dict[str, str]:
        """Volume name → the runtime's reference, of the images that this container mounts. Source: KEP-4639."""
        volumes = {v["name"]: v["image"] for v in run.pod["spec"].get("volumes") or () if v.get("image") is not None}
        found: dict[str, str] = {}
        for m in c.get("volumeMounts") or ():
            if (source := volumes.get(m["name"])) is not None and m["name"] not in found:
                wanted = {"name": c["name"], "image": source.get("reference") or ""}
                policy = source.get("pullPolicy") or ""
                found[m["name"]] = await self.images.ensure(
                    run.pod, wanted, run.secrets, run.config, run.handler, policy
                )
        return found

    async def _container_config(
        self, run: _Sync, c: Obj, image: str, restarts: int, logs: Path, image_volumes: dict[str, str]
    ) -> Any:
        _make_directory(logs)
        target = ""
        if wanted := c.get("targetContainerName"):
            found = run.status.find(wanted)
            if found is None:
                raise container_config.ConfigError(f"unable to find target container {wanted}")
            target = found.id
        return await container_config.make(
            container_config.Request(
                pod=run.pod,
                container=c,
                image=image,
                restart_count=restarts,
                ips=run.ips,
                volumes=run.volumes,
                image_volumes=image_volumes,
                target_id=target,
                log_path=container_log_path(c["name"], restarts),
            ),
            self.config,
            self.images,
            self.around.environment,
            memory_capacity=self.around.memory_capacity,
            cgroup_v2=self.around.cgroup_v2,
        )

    def _link_log(self, pod: Obj, c: Obj, id: str, path: Path) -> None:
        """The name under /var/log/containers that log collectors look for."""
        directory = Path(self.config.container_log_links_dir)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / log_link_name(p.name(pod), p.namespace(pod), c["name"], id)).symlink_to(path)
        except FileExistsError:
            pass
        except OSError as e:
            log.warning("log link of %s: %s", p.show(pod), e)

    async def _post_start(self, run: _Sync, c: Obj, id: str, hook: Obj) -> None:
        ip = run.ips[0] if run.ips else ""
        try:
            await lifecycle.run(self.cri, self.clock, run.pod, c, id, hook, ip, self.event)
        except lifecycle.HookError as e:
            reference = p.container_reference(run.pod, c)
            self.event(reference, "Warning", "FailedPostStartHook", "PostStartHook failed")
            try:
                await self.killer.kill_container(run.pod, id, c["name"], "FailedPostStartHook", "")
            except CRIError as error:
                log.warning("container %s of %s: %s", c["name"], p.show(run.pod), error)
            raise StartError(why.POST_START_HOOK_ERROR, str(e)) from e

    # -- the end of a pod

    async def remove_pod(self, status: PodStatus) -> None:
        """Removes what is left of a pod that no longer runs: containers, sandboxes, log links. Raises CRIError."""
        for s in status.containers:
            gc.remove_log_links(self.config, s)
            await _gone(self.cri.remove_container(pb.RemoveContainerRequest(container_id=s.id)))
        for b in status.sandboxes:
            await _gone(self.cri.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=b.id)))
            await _gone(self.cri.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=b.id)))

    def forget(self, uid: str) -> None:
        self.resizer.forget(uid)
        self.reasons.forget(uid)
        self.backoff.drop_prefix(uid + "_")
        self.images.forget(uid)


def _make_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o755)


async def _gone(call: Awaitable[Any]) -> None:
    try:
        await uninterrupted(call)
    except CRIError as e:
        if e.code != Code.NOT_FOUND:
            raise


def _chosen(pod: Obj, actions: act.PodActions) -> list[Obj]:
    return (
        [p.ephemeral_containers(pod)[i] for i in actions.ephemeral]
        + [p.init_containers(pod)[i] for i in actions.init]
        + [p.containers(pod)[i] for i in actions.start]
    )


def log_link_name(pod: str, namespace: str, container: str, id: str) -> str:
    return f"{pod}_{namespace}_{container}-{id}.log"


def go_seconds(seconds: float) -> str:
    """`10s`, `1m20s`, `5m0s`: whole seconds as Go prints them."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
