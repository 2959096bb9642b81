"""What an earlier life of this node left behind: directories, mounts, cgroups and logs of pods that are gone.

Looked at once, after the first list of pods from the API. A reboot leaves mounts that are no more and cgroups that
never were; a pod that was deleted while the kubelet was away leaves its directory.

Source: pkg/kubelet/kubelet_volumes.go cleanupOrphanedPodDirs, kubelet_pods.go HandlePodCleanups.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container
from pathlib import Path

from berg.kubelet.cgroups import CgroupManager
from berg.kubelet.config import KubeletConfig

log = logging.getLogger(__name__)


def _names(directory: Path) -> set[str]:
    try:
        return {entry.name for entry in directory.iterdir() if entry.is_dir()}
    except FileNotFoundError:
        return set()


def find(config: KubeletConfig, cgroups: CgroupManager, wanted: Container[str]) -> set[str]:
    """UIDs that have something here and that nobody wants."""
    logged = {name.rsplit("_", 1)[-1] for name in _names(Path(config.pod_logs_dir)) if name.count("_") >= 2}
    return {uid for uid in _names(config.pods_dir) | cgroups.pods() | logged if uid not in wanted}


async def clean_up(uids: set[str], clean: Callable[[str], Awaitable[None]]) -> None:
    for uid in sorted(uids):
        log.info("cleaning up after pod %s, which is gone", uid)
        try:
            await clean(uid)
        except OSError as e:
            log.warning("pod %s: %s", uid, e)
