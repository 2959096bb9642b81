"""ReplicaSets and ReplicationControllers: as many pods as are asked for, no more, no fewer.

What was asked of the API server and not yet seen by the informer is remembered as expectations; while any is
open, nothing is created or deleted, only the status is kept.

Source: pkg/controller/replicaset.
"""

from __future__ import annotations

import asyncio

from berg.client.expectations import Expectations
from berg.controllers.context import APIController, Context
from berg.controllers.objects import (
    compact,
    conditions_of,
    find_condition,
    namespace_is_terminating,
    replicas,
    without_condition,
)
from berg.controllers.ownership import BY_CONTROLLER, Claims, api_ref, index_by_controller, owned_or_orphans, resolve
from berg.controllers.pods import (
    BURST,
    BatchFailed,
    PodControl,
    available_in,
    from_template,
    is_active,
    is_ready,
    is_terminating,
    slow_start,
    victims,
)
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


class ReplicaSetController(APIController):
    name = "replicaset-controller"
    resource_name = "replicasets.apps"
    reports_terminating = True

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource(self.resource_name)
        self.expectations = Expectations(ctx.clock)
        self.sets = ctx.informer(self.resource_name)
        self.pods = ctx.informer("pods")
        index_by_controller(self.sets)
        index_by_controller(self.pods)
        self.claims = Claims(ctx.client, self.resource, resource("pods"))
        self.control = PodControl(ctx.client, lambda: ctx.recorder(self.component or self.name))
        self.sets.add_handler(self.enqueue, self._set_changed, self._set_gone)
        self.pods.add_handler(self._pod_added, self._pod_changed, self._pod_gone)

    def selector(self, rs: Obj) -> Selector:
        return Selector.of(rs["spec"].get("selector"))

    # -- events

    def _set_changed(self, old: Obj, new: Obj) -> None:
        self.enqueue(new)

    def _set_gone(self, rs: Obj) -> None:
        self.expectations.forget(meta.key(rs))
        self.enqueue(rs)

    def _owner(self, pod: Obj) -> Obj | None:
        ref = meta.owner_controller(pod)
        return resolve(self.sets, pod["metadata"]["namespace"], ref, self.resource.kind)

    def _pod_added(self, pod: Obj) -> None:
        if meta.is_deleting(pod):
            self._pod_gone(pod)
        elif (rs := self._owner(pod)) is not None:
            self.expectations.added(meta.key(rs))
            self.enqueue(rs)
        elif meta.owner_controller(pod) is None:
            self._enqueue_matching(pod)

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        if meta.is_deleting(new):
            # A graceful deletion begins with this; waiting for its end would hold up the replacement.
            self._pod_gone(new)
            if old["metadata"].get("labels") != new["metadata"].get("labels"):
                self._pod_gone(old)
            return
        before, after = self._owner(old), self._owner(new)
        if before is not None and before is not after:
            self.enqueue(before)
        if after is not None:
            self.enqueue(after)
        elif meta.owner_controller(new) is None and (
            before is not None or old["metadata"].get("labels") != new["metadata"].get("labels")
        ):
            self._enqueue_matching(new)

    def _pod_gone(self, pod: Obj) -> None:
        if (rs := self._owner(pod)) is not None:
            self.expectations.deleted(meta.key(rs), pod["metadata"]["uid"])
            self.enqueue(rs)

    def _enqueue_matching(self, pod: Obj) -> None:
        labels = meta.labels(pod)
        for rs in self.sets.lister.list(pod["metadata"]["namespace"]):
            selector = self.selector(rs)
            if not selector.everything and selector.matches(labels):
                self.enqueue(rs)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        rs = self.sets.lister.get_key(key)
        if rs is None:
            self.expectations.forget(key)
            return
        # Asked before the pods are listed: an event that comes in between must not make old pods look current.
        satisfied = self.expectations.satisfied(key)
        pods = [p for p in owned_or_orphans(self.pods, rs) if is_active(p) or is_terminating(p)]
        claimed = await self.claims.claim(rs, pods, self.selector(rs))
        active = [p for p in claimed if is_active(p)]
        failure: ApiError | None = None
        if satisfied and not meta.is_deleting(rs):
            try:
                await self._manage(key, rs, active)
            except ApiError as e:
                failure = e
        await self._update_status(key, rs, active, [p for p in claimed if is_terminating(p)], failure)
        if failure is not None:
            raise failure

    async def _manage(self, key: str, rs: Obj, active: list[Obj]) -> None:
        diff = replicas(rs) - len(active)
        if diff > 0:
            await self._create(key, rs, min(diff, BURST))
        elif diff < 0:
            chosen = victims(active, min(-diff, BURST), self._related(rs), self.clock.now())
            await self._delete(key, rs, chosen)

    async def _create(self, key: str, rs: Obj, count: int) -> None:
        self.expectations.expect(key, adds=count)
        pod = from_template(rs["spec"]["template"], rs, api_ref(rs, self.resource))

        async def one(_: int) -> None:
            try:
                await self.control.create(rs, pod)
            except ApiError as e:
                if not namespace_is_terminating(e):
                    raise

        try:
            await slow_start(count, one)
        except BatchFailed as e:
            self.expectations.added(key, count - e.done)
            raise e.error from None

    async def _delete(self, key: str, rs: Obj, chosen: list[Obj]) -> None:
        self.expectations.expect(key, deletes={p["metadata"]["uid"] for p in chosen})

        async def one(pod: Obj) -> None:
            try:
                await self.control.delete(rs, pod)
            except ApiError as e:
                self.expectations.deleted(key, pod["metadata"]["uid"])
                if e.code not in (404, 409):
                    raise

        results = await asyncio.gather(*(one(p) for p in chosen), return_exceptions=True)
        for r in results:
            if isinstance(r, BaseException):
                raise r

    def _related(self, rs: Obj) -> list[Obj]:
        """The pods of all sets that share this one's controller: a Deployment's revisions."""
        ref = meta.owner_controller(rs)
        siblings = self.sets.lister.by_index(BY_CONTROLLER, ref["uid"]) if ref else [rs]
        return [p for s in siblings for p in self.pods.lister.by_index(BY_CONTROLLER, s["metadata"]["uid"])]

    async def _update_status(
        self, key: str, rs: Obj, active: list[Obj], terminating: list[Obj], failure: ApiError | None
    ) -> None:
        now, min_ready = self.clock.now(), rs["spec"].get("minReadySeconds") or 0
        template = Selector.of_map((rs["spec"]["template"].get("metadata") or {}).get("labels"))
        waits = [w for p in active if (w := available_in(p, min_ready, now)) is not None]
        old = rs.get("status") or {}
        status: Obj = {
            **old,
            "replicas": len(active),
            "fullyLabeledReplicas": sum(template.matches(meta.labels(p)) for p in active),
            "readyReplicas": sum(map(is_ready, active)),
            "availableReplicas": waits.count(0.0),
            "observedGeneration": rs["metadata"].get("generation", 0),
            "conditions": self._conditions(rs, active, failure),
        }
        if self.reports_terminating:
            status["terminatingReplicas"] = len(terminating)
        status = compact(status, keep=("replicas", "terminatingReplicas"))
        if status != old:
            await self.client.update_status(self.resource, {**rs, "status": status})
        later = [w for w in waits if w > 0]
        if later:
            self.queue.add_after(key, min(later))

    def _conditions(self, rs: Obj, active: list[Obj], failure: ApiError | None) -> list[Obj]:
        conditions = conditions_of(rs)
        if failure is None:
            return without_condition(conditions, "ReplicaFailure")
        if find_condition(conditions, "ReplicaFailure") is not None:
            return conditions
        reason = "FailedCreate" if len(active) < replicas(rs) else "FailedDelete"
        new = {
            "type": "ReplicaFailure",
            "status": "True",
            "lastTransitionTime": rfc3339(self.clock.now()),
            "reason": reason,
            "message": failure.message,
        }
        return [*conditions, new]


class ReplicationControllerController(ReplicaSetController):
    name = "replicationcontroller-controller"
    component = "replication-controller"
    resource_name = "replicationcontrollers"
    reports_terminating = False

    def selector(self, rs: Obj) -> Selector:
        return Selector.of_map(rs["spec"].get("selector"))
