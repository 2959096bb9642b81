"""Ends everything a runtime runs: what `berg down` needs after the node agent is gone.

It works on the records alone, so it does its work as well after a crash or a reboot. Images stay.
"""

from __future__ import annotations

import logging
from pathlib import Path

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRIError
from berg.runtime.network import PodNetwork
from berg.runtime.own.config import OwnConfig
from berg.runtime.own.runtime import BergRuntime

log = logging.getLogger(__name__)


async def destroy(config: OwnConfig, network: PodNetwork | None) -> list[str]:
    """Stops and removes every sandbox with its containers. Returns what could not be removed, with the reason."""
    if not Path(config.root).exists():
        return []
    runtime = BergRuntime(config, network)
    await runtime.start()
    failures = []
    try:
        for sandbox in (await runtime.list_pod_sandbox(pb.ListPodSandboxRequest())).items:
            try:
                await runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
            except (CRIError, OSError) as e:
                failures.append(f"{sandbox.metadata.namespace}/{sandbox.metadata.name}: {e}")
    finally:
        await runtime.stop()
    return failures
