"""Small nodes and pods, and a scheduler core without I/O around them."""

from __future__ import annotations

import itertools
import random
from typing import Any

from berg.machinery.clock import FakeClock
from berg.scheduler.algorithm import Algorithm, Decision
from berg.scheduler.config import SchedulerConfig, parse
from berg.scheduler.framework.profile import Profile
from berg.scheduler.state.objects import ObjectStore
from berg.scheduler.state.podinfo import PodInfo, PodParser
from berg.scheduler.state.snapshot import Snapshot

Obj = dict[str, Any]
_ids = itertools.count()


def node(
    name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", labels: Obj | None = None, **more: Any
) -> Obj:
    """`more` goes into the spec; `images` and `allocatable` into the status."""
    images = more.pop("images", [])
    extra = more.pop("allocatable", {})
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": more,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods, **extra}, "images": images},
    }


def pod(
    name: str, *, cpu: str = "", memory: str = "", labels: Obj | None = None, namespace: str = "default", **spec: Any
) -> Obj:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v} | spec.pop("requests", {})
    container: Obj = {"name": "c", "image": spec.pop("image", "app:1"), "resources": {"requests": requests}}
    if ports := spec.pop("ports", None):
        container["ports"] = ports
    status = spec.pop("status", {})
    owners = spec.pop("owners", [])
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}-{next(_ids)}",
            "labels": labels or {},
            **({"ownerReferences": owners} if owners else {}),
        },
        "spec": {"containers": [container], **spec},
        "status": status,
    }


class Core:
    """The decisions of one profile on nodes and pods given by hand."""

    def __init__(self, *nodes: Obj, config: Obj | None = None, registry: Any = None) -> None:
        self.clock = FakeClock()
        self.client = None
        self.objects = ObjectStore()
        self.snapshot = Snapshot(capacity=4)
        self.parser = PodParser()
        document = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
        self.config: SchedulerConfig = parse({**document, **(config or {})}, registry)
        p = self.config.profiles[0]
        self.profile = Profile(p.scheduler_name, p.plugins, self, registry)
        self.algorithm = Algorithm(
            self.profile,
            self.snapshot,
            percentage_of_nodes_to_score=self.config.percentage_of_nodes_to_score,
            rng=random.Random(1),
        )
        for n in nodes:
            self.snapshot.set_node(n)

    async def changed(self, kind: str) -> None:
        await self.objects.changed(kind)

    def waiting_pod(self, uid: str) -> None:
        return None

    def preemption_of(self, uid: str) -> None:
        return None

    def place(self, obj: Obj, on: str) -> PodInfo:
        """A pod that is there already."""
        obj = {**obj, "spec": {**obj["spec"], "nodeName": on}}
        info = self.parser.parse(obj)
        self.snapshot.add_pod(info)
        return info

    def decide(self, obj: Obj) -> Decision:
        return self.algorithm.schedule(self.parser.parse(obj))

    def schedule(self, obj: Obj) -> str:
        """Decides, and puts it there."""
        where = self.decide(obj).node
        self.place(obj, where)
        return where
