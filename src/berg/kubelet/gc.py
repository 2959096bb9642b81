"""What is left behind and nobody wants: old instances of containers, and logs of pods that are gone.

Of each container the newest instance and the one before it stay, so that its last state and `logs --previous` can
be shown.

Source: pkg/kubelet/kuberuntime/kuberuntime_gc.go.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from berg.kubelet.config import KubeletConfig
from berg.kubelet.runtime_status import ContainerStatus, PodStatus
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, Code, CRIError

log = logging.getLogger(__name__)

KEEP = 2


async def prune(cri: CRI, status: PodStatus, config: KubeletConfig) -> None:
    """Removes instances of this pod's containers beyond the newest two, and sandboxes that were replaced."""
    seen: dict[str, int] = {}
    used = set()
    for c in status.containers:
        seen[c.name] = seen.get(c.name, 0) + 1
        if seen[c.name] <= KEEP or c.state == "running":
            used.add(c.sandbox_id)
            continue
        try:
            await cri.remove_container(pb.RemoveContainerRequest(container_id=c.id))
        except CRIError as e:
            if e.code != Code.NOT_FOUND:
                log.warning("removing container %s: %s", c.id, e)
            continue
        remove_container_logs(config, c)
    for s in status.sandboxes[1:]:
        if not s.ready and s.id not in used:
            try:
                await cri.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=s.id))
            except CRIError as e:
                if e.code != Code.NOT_FOUND:
                    log.warning("removing sandbox %s: %s", s.id, e)


def remove_container_logs(config: KubeletConfig, c: ContainerStatus) -> None:
    remove_log_links(config, c)
    if c.log_path:
        for file in Path(c.log_path).parent.glob(Path(c.log_path).name + "*"):
            file.unlink(missing_ok=True)


def remove_log_links(config: KubeletConfig, c: ContainerStatus) -> None:
    for link in Path(config.container_log_links_dir).glob(f"*-{c.id}.log"):
        link.unlink(missing_ok=True)


async def remove_pod_logs(config: KubeletConfig, uid: str) -> None:
    await asyncio.get_running_loop().run_in_executor(None, _remove_pod_logs, config.pod_logs_dir, uid)


def _remove_pod_logs(root: str, uid: str) -> None:
    for directory in Path(root).glob(f"*_{uid}"):
        shutil.rmtree(directory, ignore_errors=True)
