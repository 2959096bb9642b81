"""DaemonSets: one pod on every node that fits.

The controller chooses the node and says so in the pod's affinity; the scheduler binds. Pods and nodes of one set
are compared in `_manage`; which old pods an update may take is in daemonset_rollout.py.

Source: pkg/controller/daemon/daemon_controller.go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from berg.client.expectations import Expectations
from berg.controllers import daemonset_rollout as rollout
from berg.controllers.context import APIController, Context
from berg.controllers.history import History
from berg.controllers.nodeaffinity import fits_affinity, untolerated
from berg.controllers.objects import by_age, compact, copied, namespace_is_terminating, nested
from berg.controllers.ownership import Claims, api_ref, index_by_controller, owned_or_orphans, resolve
from berg.controllers.pods import (
    BURST,
    BatchFailed,
    PodControl,
    available_in,
    from_template,
    is_ready,
    phase,
    slow_start,
)
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

HASH_LABEL = "controller-revision-hash"
GENERATION_LABEL = "pod-template-generation"
GENERATION = "deprecated.daemonset.template.generation"
BACKOFF_S = (1.0, 900.0)
NODE_BATCH_S = 0.0002
NODE_BATCH_MAX_S = 1.0
TOLERATIONS: list[Obj] = [
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
]
HOST_NETWORK_TOLERATION: Obj = {
    "key": "node.kubernetes.io/network-unavailable",
    "operator": "Exists",
    "effect": "NoSchedule",
}


@dataclass(slots=True)
class Delay:
    """How long the next failed pod on a node is left lying."""

    seconds: float
    since: float


def node_of(pod: Obj) -> str:
    """Where the pod is, or is meant for."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    terms = nested(pod["spec"], "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    for term in (terms or {}).get("nodeSelectorTerms") or ():
        for e in term.get("matchFields") or ():
            if e["key"] == "metadata.name" and e["operator"] == "In" and len(e["values"]) == 1:
                return str(e["values"][0])
    return ""


def tolerations_for(spec: Obj) -> list[Obj]:
    found = list(spec.get("tolerations") or ())
    wanted = [*TOLERATIONS, HOST_NETWORK_TOLERATION] if spec.get("hostNetwork") else TOLERATIONS
    for t in wanted:
        key = (t["key"], t["effect"])
        found = [f for f in found if not ((f.get("key"), f.get("effect")) == key and f.get("operator") == "Exists")]
        found.append(t)
    return found


class DaemonSetController(APIController):
    name = "daemonset-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("daemonsets.apps")
        self.sets, self.pods, self.nodes = (ctx.informer(r) for r in ("daemonsets.apps", "pods", "nodes"))
        revisions = ctx.informer("controllerrevisions.apps")
        index_by_controller(self.pods)
        index_by_controller(revisions)
        self.history = History(ctx.client, revisions, self.resource, HASH_LABEL)
        self.claims = Claims(ctx.client, self.resource, resource("pods"))
        self.control = PodControl(ctx.client, lambda: ctx.recorder(self.name))
        self.expectations = Expectations(ctx.clock)
        self._delays: dict[tuple[str, str], Delay] = {}
        self.follow(self.sets)
        self.pods.add_handler(self._pod_added, self._pod_changed, self._pod_gone)
        self.nodes.add_handler(lambda n: self._all(), self._node_changed, lambda n: self._all())

    # -- events

    def _all(self) -> None:
        """A pass looks at every node; while many nodes come, a few passes do."""
        delay_s = min(NODE_BATCH_MAX_S, len(self.nodes.lister) * NODE_BATCH_S)
        for ds in self.sets.lister:
            self.queue.add_after(meta.key(ds), delay_s)

    def _node_changed(self, old: Obj, new: Obj) -> None:
        if meta.labels(old) != meta.labels(new) or old["spec"].get("taints") != new["spec"].get("taints"):
            self._all()

    def _owner(self, pod: Obj) -> Obj | None:
        return resolve(self.sets, meta.namespace(pod), meta.owner_controller(pod), "DaemonSet")

    def _pod_added(self, pod: Obj) -> None:
        if meta.is_deleting(pod):
            self._pod_gone(pod)
        elif (ds := self._owner(pod)) is not None:
            self.expectations.added(meta.key(ds))
            self.enqueue(ds)
        elif meta.owner_controller(pod) is None:
            self._enqueue_matching(pod)

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        if meta.is_deleting(new):
            self._pod_gone(new)
            return
        before, after = self._owner(old), self._owner(new)
        for ds in (before, after):
            if ds is not None:
                self.enqueue(ds)
        if after is None and meta.owner_controller(new) is None and meta.labels(old) != meta.labels(new):
            self._enqueue_matching(new)

    def _pod_gone(self, pod: Obj) -> None:
        if (ds := self._owner(pod)) is not None:
            self.expectations.deleted(meta.key(ds), meta.uid(pod))
            self.enqueue(ds)

    def _enqueue_matching(self, pod: Obj) -> None:
        for ds in self.sets.lister.list(meta.namespace(pod)):
            selector = Selector.of(ds["spec"].get("selector"))
            if not selector.everything and selector.matches(meta.labels(pod)):
                self.enqueue(ds)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        ds = self.sets.lister.get_key(key)
        if ds is None:
            self.expectations.forget(key)
            return
        selector = Selector.of(ds["spec"].get("selector"))
        if selector.everything:
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            self.event(ds, "Warning", "SelectingAll", text)
            return
        if meta.is_deleting(ds):
            return
        revisions = await self.history.of(ds)
        collisions = (ds.get("status") or {}).get("collisionCount")
        current, collisions = await self.history.current(ds, revisions, collisions)
        hash = meta.labels(current).get(HASH_LABEL) or meta.name(current)
        satisfied = self.expectations.satisfied(key)
        pods = await self._pods(ds, selector)
        failure: BaseException | None = None
        try:
            if satisfied:
                await self._manage(key, ds, pods, hash)
                if self.expectations.satisfied(key):
                    await self._roll(key, ds, await self._pods(ds, selector), hash)
            used = {meta.labels(p).get(HASH_LABEL) for here in pods.values() for p in here}
            live = {meta.name(r) for r in revisions if meta.labels(r).get(HASH_LABEL) in used}
            await self.history.trim(ds, revisions, live | {meta.name(current)})
        except ApiError as e:
            failure = e
        await self._update_status(key, ds, await self._pods(ds, selector), hash, collisions)
        if failure is not None:
            raise failure

    async def _pods(self, ds: Obj, selector: Selector) -> dict[str, list[Obj]]:
        claimed = await self.claims.claim(ds, owned_or_orphans(self.pods, ds), selector)
        found: dict[str, list[Obj]] = {}
        for pod in claimed:
            if name := node_of(pod):
                found.setdefault(name, []).append(pod)
        return found

    def should_run(self, ds: Obj, node: Obj) -> tuple[bool, bool]:
        """Whether a pod should start on the node, and whether one that is there may go on."""
        spec = ds["spec"]["template"]["spec"]
        if spec.get("nodeName") and spec["nodeName"] != meta.name(node):
            return False, False
        if not fits_affinity(node, spec):
            return False, False
        tolerations = tolerations_for(spec)
        if untolerated(node, tolerations, ("NoExecute",)) is not None:
            return False, False
        return untolerated(node, tolerations, ("NoSchedule", "NoExecute")) is None, True

    async def _manage(self, key: str, ds: Obj, pods: dict[str, list[Obj]], hash: str) -> None:
        start: list[str] = []
        stop: list[Obj] = []
        for node in self.nodes.lister:
            name = meta.name(node)
            should, may = self.should_run(ds, node)
            here = pods.get(name, [])
            if should and not here:
                start.append(name)
            elif may:
                running = [p for p in here if not meta.is_deleting(p) and not self._ended(key, ds, p, name, stop)]
                if rollout.max_surge(ds, 1):
                    stop += rollout.surplus(ds, running, hash, self.clock.now())
                    if should and not running:
                        start.append(name)
                else:
                    stop += sorted(running, key=lambda p: (not p["spec"].get("nodeName"), by_age(p)))[1:]
            else:
                stop += [p for p in here if not meta.is_deleting(p)]
        known = {meta.name(n) for n in self.nodes.lister}
        stop += [
            p
            for name, here in pods.items()
            if name not in known
            for p in here
            if not p["spec"].get("nodeName") and not meta.is_deleting(p)
        ]
        await self._sync_nodes(key, ds, stop, start, hash)

    def _ended(self, key: str, ds: Obj, pod: Obj, node: str, stop: list[Obj]) -> bool:
        """A pod that failed or succeeded is replaced; failures on one node with growing delay."""
        where = f"{meta.key(pod)} on node {node}"
        if phase(pod) == "Succeeded":
            self.event(ds, "Normal", "SucceededDaemonPod", f"Found succeeded daemon pod {where}, will try to delete it")
            stop.append(pod)
            return True
        if phase(pod) != "Failed":
            return False
        now = self.clock.monotonic()
        delay = self._delays.get((meta.uid(ds), node))
        if delay is not None and now - delay.since < delay.seconds:
            self.queue.add_after(key, delay.seconds - (now - delay.since))
            return True
        if delay is None or now - delay.since > 2 * BACKOFF_S[1]:
            delay = Delay(0.0, now)
        seconds = min(max(BACKOFF_S[0], delay.seconds * 2), BACKOFF_S[1])
        self._delays[meta.uid(ds), node] = Delay(seconds, now)
        self.event(ds, "Warning", "FailedDaemonPod", f"Found failed daemon pod {where}, will try to kill it")
        stop.append(pod)
        return True

    async def _roll(self, key: str, ds: Obj, pods: dict[str, list[Obj]], hash: str) -> None:
        if (ds["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
            return
        fits = {meta.name(n): self.should_run(ds, n)[0] for n in self.nodes.lister}
        start, stop = rollout.step(ds, pods, fits, hash, self.clock.now())
        await self._sync_nodes(key, ds, stop, start, hash)

    async def _sync_nodes(self, key: str, ds: Obj, stop: list[Obj], start: list[str], hash: str) -> None:
        start, stop = start[:BURST], stop[:BURST]
        if not start and not stop:
            return
        self.expectations.expect(key, adds=len(start), deletes={meta.uid(p) for p in stop})
        template = self._template(ds, hash)
        ref = api_ref(ds, self.resource)

        async def create(n: int) -> None:
            try:
                await self.control.create(ds, _for_node(from_template(template, ds, ref), start[n]))
            except ApiError as e:
                if not namespace_is_terminating(e):
                    raise

        async def delete(pod: Obj) -> None:
            try:
                await self.control.delete(ds, pod)
            except ApiError as e:
                self.expectations.deleted(key, meta.uid(pod))
                if e.code not in (404, 409):
                    raise

        error: BaseException | None = None
        try:
            await slow_start(len(start), create)
        except BatchFailed as e:
            self.expectations.added(key, len(start) - e.done)
            error = e.error
        results = await asyncio.gather(*(delete(p) for p in stop), return_exceptions=True)
        for r in [error, *results]:
            if isinstance(r, BaseException):
                raise r

    def _template(self, ds: Obj, hash: str) -> Obj:
        template = copied(ds["spec"]["template"])
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels[HASH_LABEL] = hash
        if generation := meta.annotations(ds).get(GENERATION):
            labels[GENERATION_LABEL] = generation
        template["spec"]["tolerations"] = tolerations_for(template["spec"])
        return template

    # -- status

    async def _update_status(
        self, key: str, ds: Obj, pods: dict[str, list[Obj]], hash: str, collisions: int | None
    ) -> None:
        now, min_ready = self.clock.now(), ds["spec"].get("minReadySeconds") or 0
        desired = current = misplaced = ready = updated = available = 0
        waits: list[float] = []
        for node in self.nodes.lister:
            should, _ = self.should_run(ds, node)
            here = [p for p in pods.get(meta.name(node), ()) if not meta.is_deleting(p)]
            if not should:
                misplaced += bool(here)
                continue
            desired += 1
            if not here:
                continue
            current += 1
            # With surge there may be two: the newest that is of use stands for the node.
            pod = max(here, key=lambda p: (is_ready(p), meta.labels(p).get(HASH_LABEL) == hash, by_age(p)))
            if is_ready(pod):
                ready += 1
                wait_s = available_in(pod, min_ready, now)
                available += wait_s == 0.0
                if wait_s:
                    waits.append(wait_s)
            updated += any(meta.labels(p).get(HASH_LABEL) == hash for p in here)
        old = ds.get("status") or {}
        status: Obj = {
            "currentNumberScheduled": current,
            "numberMisscheduled": misplaced,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": ds["metadata"].get("generation", 0),
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": desired - available,
            "collisionCount": collisions,
            "conditions": old.get("conditions"),
        }
        keep = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        status = compact(status, keep=keep)
        if collisions is None:
            status.pop("collisionCount", None)
        if status != old:
            await self.client.update_status(self.resource, {**ds, "status": status})
        if waits:
            self.queue.add_after(key, min(waits))


def _for_node(pod: Obj, name: str) -> Obj:
    """Bound for one node by affinity: whatever the template asks for by fields gives way to this."""
    spec = copied(pod["spec"])
    field = {"key": "metadata.name", "operator": "In", "values": [name]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None or not required.get("nodeSelectorTerms"):
        terms = [{"matchFields": [field]}]
    else:
        terms = [{**t, "matchFields": [field]} for t in required["nodeSelectorTerms"]]
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    return {**pod, "spec": spec}
