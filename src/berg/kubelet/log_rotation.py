"""Keeps container logs small: a log that has grown over its limit is renamed with the time, and the runtime opens
a new one. All but the newest of the old files are compressed, and the oldest removed.

Source: pkg/kubelet/logs/container_log_manager.go.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import shutil
from pathlib import Path

from berg.kubelet.config import KubeletConfig
from berg.machinery import quantity
from berg.machinery.clock import Clock
from berg.machinery.tasks import end
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError

log = logging.getLogger(__name__)

STAMP = "%Y%m%d-%H%M%S"
TEMPORARY, COMPRESSED = ".tmp", ".gz"


class LogRotation:
    def __init__(self, cri: CRI, clock: Clock, config: KubeletConfig) -> None:
        self._cri = cri
        self._clock = clock
        self._max_size = quantity.value(config.container_log_max_size)
        self._max_files = config.container_log_max_files
        self._period = config.container_log_monitor_interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._max_size > 0:
            self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._period)
            try:
                await self.rotate_all()
            except CRIError as e:
                log.warning("log rotation: %s", e)
            except Exception:
                log.exception("log rotation")

    async def rotate_all(self) -> None:
        """Raises CRIError when containers cannot be listed."""
        running = pb.ContainerFilter(state=pb.ContainerStateValue(state=pb.CONTAINER_RUNNING))
        listed = await self._cri.list_containers(pb.ListContainersRequest(filter=running))
        for c in listed.containers:
            try:
                found = await self._cri.container_status(pb.ContainerStatusRequest(container_id=c.id))
                await self.rotate(c.id, Path(found.status.log_path))
            except (CRIError, OSError) as e:
                log.warning("log of container %s: %s", c.id, e)

    async def rotate(self, id: str, path: Path) -> bool:
        """True when the log was rotated. Raises OSError or CRIError, and then the log is as it was."""
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            await self._reopen(id)  # an earlier rotation did not get that far
            return False
        if size < self._max_size:
            return False
        old = path.with_name(f"{path.name}.{self._clock.now().strftime(STAMP)}")
        await asyncio.get_running_loop().run_in_executor(None, self._tidy, path)
        os.rename(path, old)
        try:
            await self._reopen(id)
        except CRIError:
            os.rename(old, path)
            raise
        return True

    async def _reopen(self, id: str) -> None:
        await self._cri.reopen_container_log(pb.ReopenContainerLogRequest(container_id=id))

    def _tidy(self, path: Path) -> None:
        """Makes room for one more old file, and compresses those that there are."""
        for file in path.parent.glob(f"{path.name}.*{TEMPORARY}"):
            file.unlink()
        old = sorted(f for f in path.parent.glob(path.name + ".*"))
        keep = self._max_files - 2  # besides the log itself and the one that is made now
        for file in old[: max(len(old) - keep, 0)]:
            file.unlink()
        for file in old[max(len(old) - keep, 0) :]:
            if file.suffix != COMPRESSED:
                _compress(file)


def _compress(file: Path) -> None:
    temporary = file.with_name(file.name + TEMPORARY)
    with file.open("rb") as source, gzip.open(temporary, "wb") as target:
        shutil.copyfileobj(source, target)
    temporary.rename(file.with_name(file.name + COMPRESSED))
    file.unlink()
