"""APIServices for what this server serves itself: there for everyone to see, kept in step with CRDs.

Source: k8s.io/kube-aggregator pkg/controllers/autoregister, kubernetes cmd/kube-apiserver/app/aggregator.go.
"""

from __future__ import annotations

import asyncio

from berg.apiserver.aggregation import priorities
from berg.apiserver.registry.modify import modify
from berg.apiserver.registry.services import Services
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"


class LocalServices:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._resource = resource("apiservices.apiregistration.k8s.io")
        self._known: dict[str, bool] = {}
        """name → whether it was made for a CRD"""

    async def sync(self, resources: list[Resource], custom: frozenset[tuple[str, str]]) -> None:
        """`custom`: the group versions that come from CRDs."""
        wanted: dict[str, tuple[str, str]] = {}
        for r in resources:
            if r.group != priorities.APIREGISTRATION:
                wanted.setdefault(f"{r.version}.{r.group}", (r.group, r.version))
        fresh = [(n, gv) for n, gv in wanted.items() if n not in self._known]
        gone = [n for n, from_crd in self._known.items() if from_crd and n not in wanted]
        await asyncio.gather(*(self._ensure(n, gv, gv in custom) for n, gv in fresh), *(self._remove(n) for n in gone))

    async def _ensure(self, name: str, gv: tuple[str, str], from_crd: bool) -> None:
        self._known[name] = from_crd
        group, version = gv
        of_group, of_version = priorities.CUSTOM if from_crd else priorities.default(group, version)
        label = "true" if from_crd else "onstart"
        spec: Obj = {
            "group": group,
            "version": version,
            "groupPriorityMinimum": of_group,
            "versionPriority": of_version,
        }
        current = self._services.get(self._resource, "", name)
        if current is not None:
            if (current["metadata"].get("labels") or {}).get(AUTOMANAGED) == label and current["spec"] != spec:
                registry = self._services.registry(self._resource)
                await modify(registry, "", name, lambda obj: obj.update(spec=spec))
            return
        obj: Obj = {"metadata": {"name": name, "labels": {AUTOMANAGED: label}}, "spec": spec}
        try:
            await self._services.create(self._resource, "", obj)
        except ApiError as e:
            if e.code != 409:
                raise

    async def _remove(self, name: str) -> None:
        del self._known[name]
        try:
            await self._services.delete(self._resource, "", name)
        except ApiError as e:
            if e.code != 404:
                raise
