"""A server for plugins: what they see of it, in a dict."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from berg.apiserver.admission.interface import CREATE, Attributes
from berg.apiserver.auth.authorization import ALLOWED, NO_OPINION, AuthzAttributes, Verdict
from berg.apiserver.http.message import User
from berg.apiserver.registry.strategy import strategy_of
from berg.machinery import status
from berg.machinery.clock import FakeClock
from berg.machinery.resources import Resource, resource
from berg.machinery.status import Obj


class FakeApi:
    def __init__(self, *objects: tuple[str, Obj]) -> None:
        self.clock = FakeClock()
        self.store: dict[tuple[str, str, str], Obj] = {}
        self.allowed: set[tuple[str, str, str]] = set()
        self.revision = 0
        for name, obj in objects:
            self.put(name, obj)

    def put(self, name: str, obj: Obj) -> Obj:
        self.revision += 1
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        meta["resourceVersion"] = str(self.revision)
        self.store[name, meta.get("namespace") or "", meta["name"]] = obj
        return obj

    def get(self, r: Resource, namespace: str, name: str) -> Obj | None:
        return self.store.get((r.group_resource, namespace, name))

    def list(self, r: Resource, namespace: str | None = None) -> list[Obj]:
        return [o for (kind, ns, _), o in self.store.items() if kind == r.group_resource and namespace in (None, ns)]

    def counter(self, r: Resource) -> Callable[[], int]:
        return lambda: len(self.list(r))

    async def create(self, r: Resource, namespace: str, obj: Obj) -> Obj:
        name = obj["metadata"]["name"]
        if (r.group_resource, namespace, name) in self.store:
            raise status.already_exists(r.group, r.plural, name)
        if namespace:
            obj = {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}
        return self.put(r.group_resource, obj)

    async def update(self, r: Resource, namespace: str, obj: Obj, subresource: str = "") -> Obj:
        old = self.store[r.group_resource, namespace, obj["metadata"]["name"]]
        if old["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise status.conflict(r.group, r.plural, obj["metadata"]["name"], status.OPTIMISTIC_LOCK)
        return self.put(r.group_resource, obj)

    async def delete(self, r: Resource, namespace: str, name: str, options: Obj | None = None) -> None:
        if self.store.pop((r.group_resource, namespace, name), None) is None:
            raise status.not_found(r.group, r.plural, name)

    async def authorize(
        self, user: User, verb: str, r: Resource, namespace: str = "", name: str = "", subresource: str = ""
    ) -> bool:
        return (user.name, verb, name) in self.allowed

    def decide(self, asked: AuthzAttributes) -> Verdict:
        return ALLOWED if (asked.user.name, asked.verb, asked.name) in self.allowed else NO_OPINION

    def strategy(self, r: Resource) -> Any:
        return strategy_of(r)


def namespace(name: str = "ns", **labels: str) -> tuple[str, Obj]:
    return "namespaces", {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}}


def pod(name: str = "web", **spec: Any) -> Obj:
    body = {"containers": [{"name": "c", "image": "nginx"}], "serviceAccountName": "default", **spec}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"}, "spec": body}
    strategy_of(resource("pods")).default(obj)
    return obj


def attributes(kind: str, obj: Obj | None, old: Obj | None = None, **more: Any) -> Attributes:
    given = {
        "operation": CREATE,
        "resource": resource(kind),
        "subresource": "",
        "namespace": ((obj or old or {}).get("metadata") or {}).get("namespace") or "",
        "name": ((obj or old or {}).get("metadata") or {}).get("name") or "",
        "obj": obj,
        "old": old,
        "user": User("alice"),
        **more,
    }
    return Attributes(**given)
