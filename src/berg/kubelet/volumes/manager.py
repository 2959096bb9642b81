"""A pod's volumes: set up before its containers start, kept up to date while it runs, cleaned up at its end.

`mount` sets up all volumes at once and tries again what fails, from 500 ms up to 2 min, or at once when an object
that the pod refers to has changed. `refresh` rewrites what comes from the API after such a change and when a token
is due. `unmount` leaves nothing of the pod's directory.

A kind of volume that needs more than files (CSI, NFS, …) is a `Plugin`, found by the key of the volume's source.

Source: pkg/kubelet/volumemanager; operation_generator.go for the events.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig
from berg.kubelet.mounts import MountedVolume
from berg.kubelet.volumes import atomic, content, local, mounter, ownership
from berg.kubelet.volumes.content import VolumeError
from berg.machinery.clock import Clock
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5
MAX_RETRY_S = 122.0
WAIT_S = 123.0
RENEWAL_PAUSE_S = 10.0
FILES = ("configMap", "secret", "downwardAPI", "projected")
DIRECTORIES = {
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "downwardAPI": "kubernetes.io~downward-api",
    "projected": "kubernetes.io~projected",
    "emptyDir": "kubernetes.io~empty-dir",
}


class Plugin(Protocol):
    """A kind of volume. `directory` is the volume's own below the pod's."""

    async def setup(self, pod: Obj, volume: Obj, directory: Path) -> MountedVolume:
        """Again and again without harm. Raises VolumeError."""
        ...

    async def teardown(self, uid: str, volume_name: str, directory: Path) -> None: ...


@dataclass(slots=True)
class Hooks:
    """What the volumes need of the rest."""

    context: Callable[[Obj], content.Context]
    event: Callable[[Obj, str, str, str], None]
    next_renewal: Callable[[str], float | None] = lambda uid: None
    memory_allocatable: int = 0


def source_of(volume: Obj) -> str:
    """`configMap`, `emptyDir`, …; a volume without a source is an emptyDir."""
    return next((k for k in volume if k != "name"), "emptyDir")


class VolumeManager:
    def __init__(self, config: KubeletConfig, clock: Clock, hooks: Hooks, plugins: dict[str, Plugin]) -> None:
        self._config = config
        self._clock = clock
        self._hooks = hooks
        self._plugins = plugins
        self._changed: dict[str, asyncio.Event] = {}
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._mounted: dict[str, dict[str, MountedVolume]] = {}
        self._pods: dict[str, Obj] = {}

    def mounted(self, uid: str) -> dict[str, MountedVolume]:
        return self._mounted.get(uid, {})

    def objects_changed(self, uid: str) -> None:
        """An object that this pod refers to has changed: what failed is worth another try."""
        if uid in self._changed:
            self._changed[uid].set()

    async def mount(self, pod: Obj) -> dict[str, MountedVolume]:
        """Every volume by name. Raises VolumeError when some are not there after two minutes."""
        uid = p.uid(pod)
        self._pods[uid] = pod
        volumes = {v["name"]: v for v in pod["spec"].get("volumes") or ()}
        done = self._mounted.setdefault(uid, {})
        left = [v for name, v in volumes.items() if name not in done]
        began, delay = self._clock.monotonic(), FIRST_RETRY_S
        changed = self._changed.setdefault(uid, asyncio.Event())
        while left:
            changed.clear()
            results = await asyncio.gather(*(self._setup(pod, v) for v in left))
            done.update({v["name"]: m for v, m in zip(left, results, strict=True) if m is not None})
            left = [v for v, m in zip(left, results, strict=True) if m is None]
            if not left:
                break
            if self._clock.monotonic() - began >= WAIT_S:
                names = " ".join(v["name"] for v in left)
                raise VolumeError(
                    f"unmounted volumes=[{names}], unattached volumes=[], failed to process volumes=[]: "
                    "context deadline exceeded"
                )
            await self._pause(changed, delay)
            delay = min(delay * 2, MAX_RETRY_S)
        self._arm_renewal(pod)
        return done

    async def _pause(self, changed: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for w in waits:
                w.cancel()

    async def _setup(self, pod: Obj, volume: Obj) -> MountedVolume | None:
        """None when it failed, which has been told."""
        try:
            return await self._set_up(pod, volume)
        except (VolumeError, OSError, ValueError) as e:
            text = str(e)
        except ApiError as e:
            text = e.message
        self._hooks.event(
            pod, "Warning", "FailedMount", f'MountVolume.SetUp failed for volume "{volume["name"]}" : {text}'
        )
        return None

    async def _set_up(self, pod: Obj, volume: Obj) -> MountedVolume:
        kind = source_of(volume)
        if kind == "image":  # the runtime mounts it, from its own store
            return MountedVolume(Path("/nonexistent"), read_only=True)
        if kind == "hostPath":
            return MountedVolume(local.host_path(volume["hostPath"]))
        path = self.directory(p.uid(pod), kind, volume["name"])
        if kind == "emptyDir":
            local.empty_dir(pod, {"emptyDir": {}, **volume}, path, self._hooks.memory_allocatable)
            return MountedVolume(path)
        if kind in FILES:
            await self._write(pod, volume, path)
            return MountedVolume(path, read_only=True)
        plugin = self._plugins.get(kind)
        if plugin is None:
            raise VolumeError(f"no volume plugin matched: {kind}")
        return await plugin.setup(pod, volume, path)

    def directory(self, uid: str, kind: str, name: str) -> Path:
        return self._config.pod_dir(uid) / "volumes" / DIRECTORIES.get(kind, f"kubernetes.io~{kind.lower()}") / name

    async def _write(self, pod: Obj, volume: Obj, path: Path) -> bool:
        files = await content.of_volume(volume, self._hooks.context(pod))
        _make_directory(path, in_memory=source_of(volume) in ("secret", "projected"))
        group = ownership.group_of(pod)

        def own(version: Path) -> None:
            if group is not None:
                ownership.apply(version, group, read_only=True)

        return atomic.write(path, files, self._clock.now(), own)

    async def refresh(self, pod: Obj) -> None:
        """Rewrites what has changed. What fails is told, and stays as it was."""
        self._pods[p.uid(pod)] = pod
        mounted = self._mounted.get(p.uid(pod), {})
        for volume in pod["spec"].get("volumes") or ():
            if volume["name"] in mounted and source_of(volume) in FILES:
                await self._setup(pod, volume)
        self._arm_renewal(pod)

    def _arm_renewal(self, pod: Obj) -> None:
        uid = p.uid(pod)
        due = self._hooks.next_renewal(uid)
        if (old := self._renewals.pop(uid, None)) is not None and old is not asyncio.current_task():
            old.cancel()
        if due is not None:
            self._renewals[uid] = asyncio.ensure_future(self._renew(uid, due))

    async def _renew(self, uid: str, due: float) -> None:
        await self._clock.sleep(max(due - self._clock.now().timestamp(), RENEWAL_PAUSE_S))
        if uid in self._mounted and uid in self._pods:
            await self.refresh(self._pods[uid])

    async def unmount(self, uid: str) -> None:
        """Everything of the pod's directory. Raises OSError when something cannot be removed."""
        self._changed.pop(uid, None)
        self._mounted.pop(uid, None)
        self._pods.pop(uid, None)
        if (task := self._renewals.pop(uid, None)) is not None:
            task.cancel()
        root = self._config.pod_dir(uid)
        if not root.exists():
            return
        for kind, plugin in self._plugins.items():
            base = self.directory(uid, kind, "x").parent
            if base.is_dir():
                for directory in list(base.iterdir()):
                    await plugin.teardown(uid, directory.name, directory)
        mounter.unmount_below(root)
        await asyncio.get_running_loop().run_in_executor(None, _remove, root)

    async def stop(self) -> None:
        await end(*self._renewals.values())


def _remove(root: Path) -> None:
    if root.exists():
        shutil.rmtree(root)


def _make_directory(path: Path, *, in_memory: bool) -> None:
    if path.exists():
        return
    path.mkdir(parents=True)
    if in_memory:  # what is secret never reaches a disk
        try:
            mounter.tmpfs(path)
        except PermissionError as e:
            log.debug("no tmpfs for %s: %s", path, e)
    path.chmod(0o777)
