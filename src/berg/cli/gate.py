"""Waiting for the API server: the one thing the processes of a cluster need of one another at their start."""

from __future__ import annotations

import asyncio

from berg.lifecycle.spec import ClusterSpec


class ApiGate:
    """Holds up what is started after it until the API server takes connections: no component needs to begin with
    failures just because all processes of a cluster start together."""

    def __init__(self, spec: ClusterSpec) -> None:
        self._address = (spec.nodes[0].address if any(n.netns for n in spec.nodes) else "127.0.0.1", spec.api_port)

    async def start(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(*self._address)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    async def stop(self) -> None: ...
