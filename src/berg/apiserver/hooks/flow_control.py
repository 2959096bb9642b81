"""The priority levels and flow schemas that every cluster starts with."""

from __future__ import annotations

from berg.apiserver.flowcontrol import bootstrap
from berg.apiserver.registry.services import Services


async def run(services: Services) -> None:
    await bootstrap.keep(services)
