"""Removes images that no container uses, least recently used first, when the image disk fills up.

Above `imageGCHighThresholdPercent` images are removed until `imageGCLowThresholdPercent` is reached; younger ones
than `imageMinimumGCAge` stay, and `imageMaximumGCAge`, when set, removes what nobody has used for so long.

Source: pkg/kubelet/images/image_gc_manager.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berg.kubelet.config import KubeletConfig
from berg.kubelet.machine import Disk, disk
from berg.machinery.clock import Clock
from berg.machinery.tasks import end
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError

log = logging.getLogger(__name__)

PERIOD_S = 300.0


@dataclass(slots=True)
class _Record:
    size: int
    first_seen: float
    last_used: float
    pinned: bool = False


class ImageGC:
    def __init__(
        self,
        cri: CRI,
        clock: Clock,
        config: KubeletConfig,
        event: Callable[[str, str, str], None],
        measure: Callable[[str], Disk] = disk,
    ) -> None:
        """`event`: (type, reason, message) about the node."""
        self._cri = cri
        self._clock = clock
        self._config = config
        self._event = event
        self._measure = measure
        self._records: dict[str, _Record] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.detect()
                await self.collect()
            except CRIError as e:
                log.warning("image garbage collection: %s", e)
            except Exception:
                log.exception("image garbage collection")
            await self._clock.sleep(PERIOD_S)

    async def detect(self) -> set[str]:
        """Notes which images there are and which are in use; those in use by id. Raises CRIError."""
        now = self._clock.now().timestamp()
        images = (await self._cri.list_images(pb.ListImagesRequest())).images
        containers = (await self._cri.list_containers(pb.ListContainersRequest())).containers
        names: dict[str, str] = {}
        for i in images:
            for name in (i.id, *i.repo_tags, *i.repo_digests):
                names[name] = i.id
        used = {names[n] for c in containers for n in (c.image_id, c.image_ref, c.image.image) if n in names}
        present: set[str] = set()
        for i in images:
            present.add(i.id)
            record = self._records.setdefault(i.id, _Record(i.size, now, 0.0))
            record.size, record.pinned = i.size, i.pinned
            if i.id in used:
                record.last_used = now
        for id in self._records.keys() - present:
            del self._records[id]
        return used

    async def image_disk(self) -> Disk:
        """Of the runtime's image store, or of the kubelet's own directory when the runtime does not say."""
        try:
            answer: Any = await self._cri.image_fs_info(pb.ImageFsInfoRequest())
            for fs in answer.image_filesystems:
                if fs.fs_id.mountpoint and Path(fs.fs_id.mountpoint).exists():
                    return self._measure(fs.fs_id.mountpoint)
        except CRIError:
            pass
        return self._measure(self._config.root_dir)

    async def collect(self) -> int:
        """How many bytes were freed. Raises CRIError."""
        await self._remove_old()
        d = await self.image_disk()
        if d.capacity_bytes <= 0:
            self._event("Warning", "InvalidDiskCapacity", "invalid capacity 0 on image filesystem")
            return 0
        percent = 100 - d.available_bytes * 100 // d.capacity_bytes
        if percent < self._config.image_gc_high_threshold_percent:
            return 0
        target = d.capacity_bytes * (100 - self._config.image_gc_low_threshold_percent) // 100 - d.available_bytes
        freed = await self.free(target)
        if freed < target:
            message = (
                f"Failed to garbage collect required amount of images. Attempted to free {target} bytes, "
                f"but only found {freed} bytes eligible to free."
            )
            self._event("Warning", "FreeDiskSpaceFailed", message)
        return freed

    async def _remove_old(self) -> None:
        if self._config.image_maximum_gc_age <= 0:
            return
        used = await self.detect()
        limit = self._clock.now().timestamp() - self._config.image_maximum_gc_age
        for id, r in list(self._records.items()):
            if id not in used and not r.pinned and max(r.last_used, r.first_seen) < limit:
                await self._remove(id)

    async def free(self, wanted: int, *, even_young: bool = False) -> int:
        """Removes unused images until `wanted` bytes are freed."""
        used = await self.detect()
        now, freed = self._clock.now().timestamp(), 0
        unused = [(r.last_used, r.first_seen, id, r) for id, r in self._records.items() if id not in used]
        for _, first_seen, id, r in sorted(unused, key=lambda x: x[:3]):
            if freed >= wanted:
                break
            if r.pinned or (not even_young and now - first_seen < self._config.image_minimum_gc_age):
                continue
            if await self._remove(id):
                freed += r.size
        return freed

    async def free_all(self) -> int:
        """Everything unused, for a disk under pressure."""
        return await self.free(1 << 62, even_young=True)

    async def _remove(self, id: str) -> bool:
        try:
            await self._cri.remove_image(pb.RemoveImageRequest(image=pb.ImageSpec(image=id)))
        except CRIError as e:
            log.warning("image %s: %s", id, e)
            return False
        self._records.pop(id, None)
        return True
