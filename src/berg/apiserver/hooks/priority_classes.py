"""The two priority classes that system pods name."""

from __future__ import annotations

import asyncio

from berg.apiserver.hooks.objects import ensure
from berg.apiserver.registry.services import Services
from berg.machinery.resources import resource

SYSTEM = (
    (
        "system-node-critical",
        2000001000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2000000000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
)


async def run(services: Services) -> None:
    classes = resource("priorityclasses.scheduling.k8s.io")
    await asyncio.gather(
        *(
            ensure(services, classes, {"metadata": {"name": name}, "value": value, "description": text})
            for name, value, text in SYSTEM
        )
    )
