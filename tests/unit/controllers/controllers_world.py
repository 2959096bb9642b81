"""A cluster in miniature for controllers: the fake API, chosen controllers, a hand-moved clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fake_api import FakeAPI, merge

from berg.client.rest import Client
from berg.controllers.config import Config
from berg.controllers.manager import ControllerManager
from berg.machinery.clock import FakeClock, rfc3339
from berg.machinery.resources import resource

Obj = dict[str, Any]


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.api = FakeAPI(self.clock)
        self.client = Client(self.api, clock=self.clock)
        self.manager: ControllerManager | None = None
        self.config = Config()

    async def run(self, *controllers: str) -> None:
        self.config.controllers = list(controllers)
        self.manager = ControllerManager(self.client, self.config, clock=self.clock)
        await self.manager.start()
        await self.settle()

    async def settle(self, turns: int = 400) -> None:
        """Until nothing more happens without time passing (short retry delays do pass)."""
        for _ in range(5):
            version = self.api.version
            for _ in range(turns):
                await asyncio.sleep(0)
            await self.clock.advance(0.05)
            if self.api.version == version:
                return

    def create(self, resource_name: str, obj: Obj) -> Obj:
        r = resource(resource_name)
        obj = {"apiVersion": r.api_version, "kind": r.kind, **obj}
        if r.namespaced:
            obj["metadata"].setdefault("namespace", "default")
        return self.api.put(r.group, r.plural, obj)

    def all(self, resource_name: str) -> list[Obj]:
        plural, _, group = resource_name.partition(".")
        return self.api.all(plural, group)

    def get(self, resource_name: str, name: str, namespace: str | None = "default") -> Obj:
        plural, _, group = resource_name.partition(".")
        found = self.api.one(plural, f"{namespace}/{name}" if namespace else name, group)
        assert found is not None, f"no {resource_name} {name}"
        return found

    def change(self, resource_name: str, name: str, patch: Obj, namespace: str | None = "default") -> Obj:
        plural, _, group = resource_name.partition(".")
        old = self.get(resource_name, name, namespace)
        new = merge(old, patch)
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        return self.api.put(group, plural, new)

    def delete(self, resource_name: str, name: str, namespace: str | None = "default") -> None:
        plural, _, group = resource_name.partition(".")
        self.api.drop(plural, f"{namespace}/{name}" if namespace else name, group)

    def pods(self, where: Callable[[Obj], bool] = lambda p: True) -> list[Obj]:
        return [p for p in self.all("pods") if where(p)]

    def set_pod(self, name: str, phase: str = "Running", ready: bool = True, **status: Any) -> None:
        now = rfc3339(self.clock.now())
        condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}
        conditions = [condition] if phase == "Running" else []
        self.change("pods", name, {"status": {"phase": phase, "conditions": conditions, **status}})

    async def run_pods(self) -> None:
        """Every pending pod becomes ready, every terminating one goes, until nothing changes."""
        for _ in range(20):
            acted = False
            for pod in self.pods():
                if pod["metadata"].get("deletionTimestamp"):
                    if not pod["metadata"].get("finalizers"):
                        self.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])
                        acted = True
                elif pod.get("status", {}).get("phase") == "Pending":
                    self.set_pod(pod["metadata"]["name"])
                    acted = True
            await self.settle()
            if not acted:
                return

    def events(self, reason: str = "") -> list[str]:
        return [e["message"] for e in self.all("events") if not reason or e["reason"] == reason]


def template(labels: dict[str, str], image: str = "nginx:1") -> Obj:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
