"""Runs scenario files: see README.md here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from berg.machinery.resources import Resource, builtin, resource
from berg.machinery.status import ApiError
from berg.testing import Cluster, SimConfig

Obj = dict[str, Any]
PATIENCE_S = 15.0
SETTLE_S = 0.05
"""how long an output that agrees must stay so: later changes would make it wrong"""


@dataclass
class Step:
    command: str
    document: str = ""
    expected: str = ""
    comments: list[str] = field(default_factory=list)

    def text(self, printed: str) -> str:
        head = "".join(f"{c}\n" for c in self.comments)
        body = f"{self.document}\n" if self.document else ""
        return f"{head}{self.command}\n{body}----\n" + (f"{printed}\n" if printed else "")


def read(path: Path) -> list[Step]:
    steps: list[Step] = []
    for block in re.split(r"\n\s*\n", path.read_text().strip()):
        lines = block.splitlines()
        comments = []
        while lines and lines[0].startswith("#"):
            comments.append(lines.pop(0))
        if not lines:
            steps.append(Step("", comments=comments))
            continue
        end = lines.index("----") if "----" in lines else len(lines)
        steps.append(Step(lines[0], "\n".join(lines[1:end]), "\n".join(lines[end + 1 :]), comments))
    return steps


def options(words: list[str]) -> dict[str, str]:
    return dict(w.split("=", 1) for w in words if "=" in w)


def plural(name: str) -> Resource:
    """By plural name, or by kind."""
    for r in builtin().all:
        if name in (r.plural, r.kind, r.group_resource):
            return r
    return resource(name)


class Scenario:
    def __init__(self) -> None:
        self.cluster: Cluster
        self._templates: dict[str, str] = {}
        self._zones = False
        self._seen: dict[str, list[str]] = {}
        self._watches: list[asyncio.Task[None]] = []

    async def run(self, steps: list[Step]) -> list[str]:
        """What each step printed. Stops at the first that prints something else than expected."""
        printed: list[str] = []
        for step in steps:
            if not step.command:
                printed.append("")
                continue
            verb, *words = step.command.split()
            state = verb in ("pods", "show", "events", "seen")
            work = getattr(self, f"do_{verb}")
            printed.append(await self._agreeing(work, words, step) if state else await work(words, step.document))
            if printed[-1] != step.expected:
                break
        return printed

    async def stop(self) -> None:
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        if hasattr(self, "cluster"):
            await self.cluster.stop()

    async def _agreeing(self, work: Callable[..., Awaitable[str]], words: list[str], step: Step) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while True:
            got = await work(words, step.document)
            if got == step.expected:
                await asyncio.sleep(SETTLE_S)
                if (again := await work(words, step.document)) == got:
                    if words and step.command.startswith("seen"):
                        self._seen[words[0]].clear()
                    return again
            elif loop.time() > deadline:
                return got
            else:
                await asyncio.sleep(0.01)

    # Commands

    async def do_nodes(self, words: list[str], _: str) -> str:
        o = options(words)
        config = SimConfig(prefix="node-")
        for name in ("cpu", "memory"):
            if name in o:
                setattr(config, name, o[name])
        config.pods = int(o.get("pods", "110"))
        config.zones = int(o.get("zones", "0"))
        self._zones = bool(config.zones)
        self.cluster = Cluster(nodes=int(words[0]), node_config=config, https=False)
        await self.cluster.start()
        return ""

    async def do_create(self, words: list[str], document: str) -> str:
        r = plural(words[0])
        for obj in yaml.safe_load_all(document):
            await self._create(r, obj)
        return ""

    async def _create(self, r: Resource, obj: Obj) -> None:
        obj = {"apiVersion": r.api_version, "kind": r.kind, **obj}
        await self.cluster.client.create(r, obj, "default" if r.namespaced else None)

    async def do_pod(self, words: list[str], document: str) -> str:
        await self._create(resource("pods"), {"metadata": _metadata(words), "spec": _pod_spec(words, document)})
        return ""

    async def do_deployment(self, words: list[str], document: str) -> str:
        o = options(words)
        labels = {"app": words[0]}
        container = {"name": "c", "image": o.get("image", "app:1")}
        if "cpu" in o:
            container["resources"] = {"requests": {"cpu": o["cpu"]}}  # type: ignore[assignment]
        spec: Obj = {
            "replicas": int(o.get("replicas", "1")),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        spec.update(yaml.safe_load(document) or {})
        await self._create(resource("deployments.apps"), {"metadata": {"name": words[0]}, "spec": spec})
        return ""

    async def do_patch(self, words: list[str], document: str) -> str:
        r = plural(words[0])
        namespace = "default" if r.namespaced else None
        await self.cluster.client.patch(r, namespace, words[1], yaml.safe_load(document), type="strategic")
        return ""

    async def do_delete(self, words: list[str], _: str) -> str:
        r = plural(words[0])
        await self.cluster.client.delete(r, "default" if r.namespaced else None, words[1])
        return ""

    async def do_pods(self, words: list[str], _: str) -> str:
        found = await self.cluster.client.list(resource("pods"), "default", label_selector=",".join(words))
        zones: dict[str, str] = {}
        if self._zones:
            nodes = await self.cluster.client.list(resource("nodes"))
            zones = {n["metadata"]["name"]: n["metadata"]["labels"].get(ZONE, "-") for n in nodes["items"]}
        lines = []
        for p in found["items"]:
            node = p["spec"].get("nodeName") or "-"
            where = zones.get(node, node)
            lines.append(f"{self._name(p)} {where} {p['status'].get('phase')}")
        return "\n".join(sorted(lines))

    async def do_show(self, words: list[str], _: str) -> str:
        r = plural(words[0])
        try:
            obj: Any = await self.cluster.client.get(r, "default" if r.namespaced else None, words[1])
        except ApiError as e:
            return e.message
        return "\n".join(f"{path}: {_at(obj, path)}" for path in words[2:])

    async def do_events(self, words: list[str], _: str) -> str:
        found = await self.cluster.client.list(resource("events", "v1"), "default")
        lines = [
            f"{e['type']} {e['reason']} {e.get('message') or e.get('note')}"
            for e in found["items"]
            if e.get("involvedObject", {}).get("name") == words[0]
        ]
        return "\n".join(dict.fromkeys(lines))

    async def do_watch(self, words: list[str], _: str) -> str:
        name, r = words[0], plural(words[1])
        seen = self._seen[name] = []
        listed = await self.cluster.client.list(r, "default", limit=1)

        async def follow() -> None:
            events = self.cluster.client.watch(
                r,
                "default",
                resource_version=listed["metadata"]["resourceVersion"],
                label_selector=",".join(words[2:]),
            )
            async for e in events:
                if e.type != "BOOKMARK":
                    phase = (e.object.get("status") or {}).get("phase")
                    line = " ".join(filter(None, (e.type, self._name(e.object), phase)))
                    if not seen or seen[-1] != line:
                        seen.append(line)

        self._watches.append(asyncio.create_task(follow()))
        return ""

    async def do_seen(self, words: list[str], _: str) -> str:
        return "\n".join(self._seen[words[0]])

    def _name(self, obj: Obj) -> str:
        meta = obj["metadata"]
        name: str = meta["name"]
        template = (meta.get("labels") or {}).get("pod-template-hash")
        if template is None:
            return name
        number = self._templates.setdefault(template, f"<{len(self._templates) + 1}>")
        head, _, _ = name.partition(f"-{template}")
        return f"{head}-{number}" + ("-…" if obj.get("kind") != "ReplicaSet" and "replicas" not in obj["spec"] else "")


ZONE = "topology.kubernetes.io/zone"


def _metadata(words: list[str]) -> Obj:
    labels = dict(w.removeprefix("label=").split(":", 1) for w in words if w.startswith("label="))
    return {"name": words[0], "labels": labels}


def _pod_spec(words: list[str], document: str) -> Obj:
    o = options(words)
    requests = {k: o[k] for k in ("cpu", "memory") if k in o}
    spec: Obj = {"containers": [{"name": "c", "image": "app:1", "resources": {"requests": requests}}]}
    if "priority" in o:
        spec["priorityClassName"] = o["priority"]
    if "node" in o:
        spec["nodeSelector"] = dict([o["node"].split(":", 1)])
    spec.update(yaml.safe_load(document) or {})
    return spec


def _at(obj: Any, path: str) -> str:
    """`status.conditions[Available].status`: a list is searched by `type` or `name`."""
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(obj, list):
            obj = next((i for i in obj if part in (i.get("type"), i.get("name"))), None)
        elif isinstance(obj, dict):
            obj = obj.get(part)
        if obj is None:
            return "-"
    return str(obj)
