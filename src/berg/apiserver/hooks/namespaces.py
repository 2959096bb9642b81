"""The four namespaces that always exist."""

from __future__ import annotations

from berg.apiserver.hooks.objects import ensure
from berg.apiserver.registry.services import Services
from berg.machinery.resources import resource

SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "default")


async def run(services: Services) -> None:
    for name in SYSTEM_NAMESPACES:
        await ensure(services, resource("namespaces"), {"metadata": {"name": name}})
