"""A node agent to be killed: starts a runtime and a container, says its ID, and waits for its end.

python -m … ROOT STATE ARCHIVE CGROUP COMMAND…
"""

from __future__ import annotations

import asyncio
import sys

from berg.runtime.own.config import OwnConfig

from .harness import Harness


async def main() -> None:
    root, state, archive, cgroup, *command = sys.argv[1:]
    harness = Harness(OwnConfig(root, state, default_cgroup_parent=cgroup))
    await harness.start()
    await harness.runtime.images.import_archive(archive)
    print(await harness.run(*command), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
