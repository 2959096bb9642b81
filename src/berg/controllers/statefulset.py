"""StatefulSets: pods with names and storage of their own, made in order and ended in the reverse one.

With policy OrderedReady one pod is dealt with at a time, and only when all before it are available; with Parallel
all at once. An update replaces pods from the highest ordinal down, not below the partition. What a pod should look
like, and whether its claims are in order, is in statefulset_pods.py.

Source: pkg/controller/statefulset/stateful_set_control.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from berg.client.expectations import Expectations
from berg.controllers import statefulset_pods as identity
from berg.controllers.context import APIController, Context
from berg.controllers.history import History, template_of
from berg.controllers.objects import compact, replicas, scaled
from berg.controllers.ownership import Claims, index_by_controller, owned_or_orphans, resolve
from berg.controllers.pods import BatchFailed, available_in, is_ready, phase, slow_start
from berg.controllers.statefulset_claims import ClaimControl
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

REVISION_LABEL = "controller-revision-hash"

Step = Callable[[int], Awaitable[bool]]


class StatefulSetController(APIController):
    name = "statefulset-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource, self.pod_resource = resource("statefulsets.apps"), resource("pods")
        self.sets, self.pods = ctx.informer("statefulsets.apps"), ctx.informer("pods")
        revisions = ctx.informer("controllerrevisions.apps")
        index_by_controller(self.pods)
        index_by_controller(revisions)
        self.history = History(ctx.client, revisions, self.resource, "controller.kubernetes.io/hash")
        self.claims = Claims(ctx.client, self.resource, self.pod_resource)
        self.volumes = ClaimControl(ctx, self.event)
        self.expectations = Expectations(ctx.clock)
        """pods made here that the informer has not shown yet"""
        self.follow(self.sets)
        self.pods.add_handler(self._pod_added, self._pod_changed, self._pod)

    # -- events

    def _owner(self, pod: Obj) -> Obj | None:
        return resolve(self.sets, meta.namespace(pod), meta.owner_controller(pod), "StatefulSet")

    def _pod_added(self, pod: Obj) -> None:
        if (owner := self._owner(pod)) is not None:
            self.expectations.added(meta.key(owner))
        self._pod(pod)

    def _pod(self, pod: Obj) -> None:
        if (owner := self._owner(pod)) is not None:
            self.enqueue(owner)
        elif meta.owner_controller(pod) is None:
            self._enqueue_matching(pod)

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        before = self._owner(old)
        if before is not None and before is not self._owner(new):
            self.enqueue(before)
        self._pod(new)

    def _enqueue_matching(self, pod: Obj) -> None:
        for s in self.sets.lister.list(meta.namespace(pod)):
            selector = Selector.of(s["spec"].get("selector"))
            if identity.ordinal(s, pod) is not None and selector.matches(meta.labels(pod)):
                self.enqueue(s)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        s = self.sets.lister.get_key(key)
        if s is None:
            self.expectations.forget(key)
            return
        if not self.expectations.satisfied(key):
            return
        revisions = await self.history.of(s)
        candidates = [p for p in owned_or_orphans(self.pods, s) if identity.ordinal(s, p) is not None]
        pods = await self.claims.claim(s, candidates, Selector.of(s["spec"].get("selector")))
        collisions = (s.get("status") or {}).get("collisionCount")
        update, collisions = await self.history.current(s, revisions, collisions)
        known = (s.get("status") or {}).get("currentRevision")
        current = next((r for r in revisions if meta.name(r) == known), update)
        work = Pass(self, key, s, pods, current, update)
        failure: BaseException | None = None
        try:
            await work.run()
        except ApiError as e:
            failure = e
        status = work.status(collisions)
        if status != (s.get("status") or {}):
            await self.client.update_status(self.resource, {**s, "status": status})
        if failure is not None:
            raise failure
        live = {meta.name(current), meta.name(update)} | {meta.labels(p).get(REVISION_LABEL, "") for p in pods}
        await self.history.trim(s, revisions, live)
        waits = [w for p in pods if (w := available_in(p, work.min_ready, self.clock.now())) is not None and w > 0]
        if waits:
            self.queue.add_after(key, min(waits))

    # -- pods, with the events that users look for

    async def create_pod(self, key: str, s: Obj, pod: Obj) -> None:
        await self.volumes.create_missing(s, pod)
        self.expectations.raise_by(key, adds=1)
        try:
            await self.client.create(self.pod_resource, pod)
        except ApiError as e:
            self.expectations.added(key)
            if e.reason == "AlreadyExists":
                return
            self._tell(s, "Create", pod, e)
            raise
        self._tell(s, "Create", pod)

    async def update_pod(self, s: Obj, pod: Obj, wanted: Obj) -> None:
        try:
            await self.client.update(self.pod_resource, wanted)
        except ApiError as e:
            self._tell(s, "Update", pod, e)
            raise
        self._tell(s, "Update", pod)

    async def delete_pod(self, s: Obj, pod: Obj) -> None:
        md = pod["metadata"]
        try:
            await self.client.delete(self.pod_resource, md["namespace"], md["name"], uid=md["uid"])
        except ApiError as e:
            if e.code in (404, 409):
                return
            self._tell(s, "Delete", pod, e)
            raise
        self._tell(s, "Delete", pod)

    def _tell(self, s: Obj, verb: str, pod: Obj, error: ApiError | None = None) -> None:
        what = f"{verb} Pod {meta.name(pod)} in StatefulSet {meta.name(s)}"
        if error is None:
            self.event(s, "Normal", f"Successful{verb}", f"{what} successful")
        else:
            self.event(s, "Warning", f"Failed{verb}", f"{what} failed error: {error.message}")


class Pass:
    """One reconcile of one set."""

    def __init__(self, c: StatefulSetController, key: str, s: Obj, pods: list[Obj], current: Obj, update: Obj) -> None:
        self.c, self.key, self.s, self.pods = c, key, s, pods
        self.current, self.update = current, update
        self.min_ready: int = s["spec"].get("minReadySeconds") or 0
        self.ordered = s["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        self.start = (s["spec"].get("ordinals") or {}).get("start", 0)
        self.deleted_current = 0

    def _unavailable(self, pod: Obj | None) -> bool:
        if pod is None or meta.is_deleting(pod) or phase(pod) != "Running":
            return True
        return available_in(pod, self.min_ready, self.c.clock.now()) != 0.0

    async def run(self) -> None:
        s, count = self.s, replicas(self.s)
        slots: list[Obj | None] = [None] * count
        condemned: list[Obj] = []
        for pod in self.pods:
            n = identity.ordinal(s, pod)
            assert n is not None
            if 0 <= n - self.start < count:
                slots[n - self.start] = pod
            else:
                condemned.append(pod)
        condemned.sort(key=lambda p: identity.ordinal(s, p) or 0, reverse=True)
        if meta.is_deleting(s):
            return
        if await self._all(count, lambda i: self._replica(slots, i)):
            return

        async def fix_claims(i: int) -> bool:
            await self.c.volumes.own(s, condemned[i])
            return False

        await self._all(len(condemned), fix_claims)
        unhealthy = [p for p in slots if p is not None and self._unavailable(p)]
        unhealthy += [p for p in reversed(condemned) if self._unavailable(p)]
        first = unhealthy[0] if unhealthy else None
        if await self._all(len(condemned), lambda i: self._condemned(condemned[i], first)):
            return
        present = [p for p in slots if p is not None]
        # A slot that was filled in this pass is empty here: the next pass goes on.
        if (s["spec"].get("updateStrategy") or {}).get("type") != "OnDelete" and len(present) == count:
            await self._roll(present, count)

    async def _all(self, count: int, step: Step) -> bool:
        """In order until one says stop, or all together. Whether this pass is over."""
        if self.ordered:
            for i in range(count):
                if await step(i):
                    return True
            return False
        try:
            await slow_start(count, step)
        except BatchFailed as e:
            raise e.error from None
        return False

    async def _replica(self, slots: list[Obj | None], i: int) -> bool:
        pod = slots[i]
        if pod is None:
            await self.c.create_pod(self.key, self.s, self._new_pod(self.start + i))
            return self.ordered
        if phase(pod) in ("Failed", "Succeeded"):
            if not meta.is_deleting(pod):
                await self.c.delete_pod(self.s, pod)
            return True
        if phase(pod) == "Pending":
            await self.c.volumes.create_missing(self.s, pod)
        if self.ordered and self._unavailable(pod):
            return True
        owned = await self.c.volumes.own(self.s, pod)
        if not identity.matches(self.s, pod) or not owned:
            wanted = identity.with_identity(self.s, pod, self.start + i)
            if wanted != pod:
                await self.c.update_pod(self.s, pod, wanted)
        return False

    def _new_pod(self, n: int) -> Obj:
        """Of which revision? What the partition keeps back, or an update has not reached, is of the current one."""
        strategy = self.s["spec"].get("updateStrategy") or {}
        rolling = strategy.get("rollingUpdate")
        held_back = (self.s.get("status") or {}).get("currentReplicas", 0)
        if rolling is not None:
            held_back = rolling.get("partition") or 0
        elif strategy.get("type", "RollingUpdate") != "RollingUpdate":
            held_back = 0
        revision = self.current if n < self.start + held_back else self.update
        return identity.new_pod(self.s, template_of(revision), meta.name(revision), n, self.c.resource)

    async def _condemned(self, pod: Obj, first_unhealthy: Obj | None) -> bool:
        if meta.is_deleting(pod):
            return self.ordered
        if self.ordered and self._unavailable(pod) and pod is not first_unhealthy:
            return True
        await self.c.delete_pod(self.s, pod)
        if meta.labels(pod).get(REVISION_LABEL) == meta.name(self.current):
            self.deleted_current += 1
        return True

    async def _roll(self, pods: list[Obj], count: int) -> None:
        rolling = (self.s["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        partition = rolling.get("partition") or 0
        limit = max(1, scaled(rolling.get("maxUnavailable", 1), count, round_up=True))
        if limit > 1:
            await self._roll_many(pods[partition:], limit - sum(map(self._unavailable, pods)))
            return
        for pod in reversed(pods[partition:]):
            if self._is_outdated(pod):
                await self._replace(pod)
                return
            if self._unavailable(pod):
                return

    async def _roll_many(self, pods: list[Obj], budget: int) -> None:
        for pod in reversed(pods):
            if budget <= 0:
                return
            if self._is_outdated(pod):
                await self._replace(pod)
                budget -= 1

    def _is_outdated(self, pod: Obj) -> bool:
        return meta.labels(pod).get(REVISION_LABEL) != meta.name(self.update) and not meta.is_deleting(pod)

    async def _replace(self, pod: Obj) -> None:
        await self.c.delete_pod(self.s, pod)
        self.deleted_current += 1

    def status(self, collisions: int | None) -> Obj:
        old = self.s.get("status") or {}
        running = [p for p in self.pods if phase(p) == "Running" and is_ready(p)]
        alive = [p for p in self.pods if not meta.is_deleting(p)]

        def of(revision: Obj) -> int:
            return sum(meta.labels(p).get(REVISION_LABEL) == meta.name(revision) for p in alive)

        now = self.c.clock.now()
        status: Obj = {
            **{k: v for k, v in old.items() if k == "conditions"},
            "observedGeneration": self.s["metadata"].get("generation", 0),
            "replicas": len(self.pods),
            "readyReplicas": len(running),
            "availableReplicas": sum(available_in(p, self.min_ready, now) == 0.0 for p in running),
            "currentReplicas": max(0, of(self.current) - self.deleted_current),
            "updatedReplicas": of(self.update),
            "currentRevision": meta.name(self.current),
            "updateRevision": meta.name(self.update),
            "collisionCount": collisions or 0,
        }
        strategy = (self.s["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
        counts = {status["updatedReplicas"], status["replicas"], status["readyReplicas"], replicas(self.s)}
        if strategy == "RollingUpdate" and len(counts) == 1:
            status["currentReplicas"] = status["updatedReplicas"]
            status["currentRevision"] = status["updateRevision"]
        return compact(status, keep=("replicas", "availableReplicas", "collisionCount"))
