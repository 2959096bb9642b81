"""A node agent to be killed: starts a runtime and a container, says its ID, and waits for its end. Without a command it
makes and removes pods all the time, and says `ready`.

python -m … ROOT STATE ARCHIVE CGROUP [COMMAND…]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.own.config import OwnConfig

from .harness import Harness


async def main() -> None:
    root, state, archive, cgroup, *command = sys.argv[1:]
    harness = Harness(OwnConfig(root, state, default_cgroup_parent=cgroup))
    await harness.start()
    await harness.runtime.images.import_archive(archive)
    if not command:
        print("ready", flush=True)
        await asyncio.gather(*(churn(harness, number) for number in range(3)))
    print(await harness.run(*command), flush=True)
    await asyncio.Event().wait()


async def churn(harness: Harness, number: int) -> None:
    for turn in itertools.count():
        metadata = pb.PodSandboxMetadata(name=f"{number}-{turn}-{os.getpid()}")
        linux = pb.LinuxPodSandboxConfig()
        linux.security_context.namespace_options.pid = pb.POD if turn % 2 else pb.CONTAINER
        sandbox = await harness.sandbox(metadata=metadata, linux=linux)
        await harness.run("sh", "-c", "echo x; sleep 0.1; exit 3", sandbox=sandbox)
        if turn % 3:
            await harness.runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox[0]))


if __name__ == "__main__":
    asyncio.run(main())
