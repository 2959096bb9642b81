"""Deployments: ReplicaSets of successive templates, scaled against each other so that a rollout keeps its promises.

Each template has one ReplicaSet, named by the template's hash. A reconcile takes exactly one of these roads:
pause or scale (all sets in proportion), recreate (old ones to zero, then the new one), or a rolling step. The
next step follows when the sets' status changes.

The arithmetic of a rollout is in deployment_rollout.py, the status in deployment_status.py.

Source: pkg/controller/deployment.
"""

from __future__ import annotations

from berg.controllers import deployment_rollout as rollout
from berg.controllers import deployment_status as progress
from berg.controllers.context import APIController, Context
from berg.controllers.objects import (
    by_age,
    compact,
    conditions_of,
    copied,
    find_condition,
    namespace_is_terminating,
    put_condition,
    replicas,
)
from berg.controllers.ownership import BY_CONTROLLER, Claims, api_ref, index_by_controller, owned_or_orphans, resolve
from berg.controllers.pods import is_finished
from berg.machinery import hashing, meta
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

HASH_LABEL = "pod-template-hash"
NAME_MAX = 253
ROLLBACK = "deprecated.deployment.rollback.to"


class DeploymentController(APIController):
    name = "deployment-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource, self.set_resource = resource("deployments.apps"), resource("replicasets.apps")
        self.deployments = ctx.informer("deployments.apps")
        self.sets = ctx.informer("replicasets.apps")
        self.pods = ctx.informer("pods")
        index_by_controller(self.sets)
        index_by_controller(self.pods)
        self.claims = Claims(ctx.client, self.resource, self.set_resource)
        self.follow(self.deployments)
        self.sets.add_handler(self._set_added, self._set_changed, self._set_gone)
        self.pods.add_handler(None, None, self._pod_gone)

    # -- events

    def _owner(self, rs: Obj) -> Obj | None:
        ref = meta.owner_controller(rs)
        return resolve(self.deployments, rs["metadata"]["namespace"], ref, "Deployment")

    def _set_added(self, rs: Obj) -> None:
        if meta.is_deleting(rs):
            self._set_gone(rs)
        elif meta.owner_controller(rs) is None:
            self._enqueue_matching(rs)
        elif (d := self._owner(rs)) is not None:
            self.enqueue(d)

    def _set_changed(self, old: Obj, new: Obj) -> None:
        before, after = self._owner(old), self._owner(new)
        for d in (before, after):
            if d is not None:
                self.enqueue(d)
        if after is None and meta.owner_controller(new) is None:
            self._enqueue_matching(new)

    def _set_gone(self, rs: Obj) -> None:
        if (d := self._owner(rs)) is not None:
            self.enqueue(d)

    def _pod_gone(self, pod: Obj) -> None:
        """A Recreate rollout waits until the last old pod is gone."""
        ref = meta.owner_controller(pod)
        rs = resolve(self.sets, pod["metadata"]["namespace"], ref, "ReplicaSet")
        d = self._owner(rs) if rs is not None else None
        if d is not None and rollout.strategy(d) == "Recreate":
            self.enqueue(d)

    def _enqueue_matching(self, rs: Obj) -> None:
        labels = meta.labels(rs)
        for d in self.deployments.lister.list(rs["metadata"]["namespace"]):
            selector = Selector.of(d["spec"].get("selector"))
            if not selector.everything and selector.matches(labels):
                self.enqueue(d)

    # -- the loop

    async def reconcile(self, key: str) -> None:
        d = self.deployments.lister.get_key(key)
        if d is None:
            return
        selector = Selector.of(d["spec"].get("selector"))
        if selector.everything:
            self.event(
                d, "Warning", "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required."
            )
            if (d.get("status") or {}).get("observedGeneration", 0) < d["metadata"]["generation"]:
                status = {**(d.get("status") or {}), "observedGeneration": d["metadata"]["generation"]}
                await self._put_status(d, status)
            return
        sets = await self.claims.claim(d, owned_or_orphans(self.sets, d), selector)
        sets.sort(key=by_age)
        if meta.is_deleting(d):
            await self._sync_status_only(d, sets)
            return
        d = await self._note_pause(d)
        if d["spec"].get("paused"):
            await self._sync_scale(d, sets)
            return
        if ROLLBACK in meta.annotations(d):
            await self._rollback(d, sets)
            return
        if self._is_scaling(d, sets):
            await self._sync_scale(d, sets)
            return
        if rollout.strategy(d) == "Recreate":
            await self._recreate(d, sets)
        else:
            await self._roll(d, sets)

    async def _roll(self, d: Obj, sets: list[Obj]) -> None:
        d, new, old = await self._revisions(d, sets, create=True)
        if new is None:
            return
        if (size := rollout.new_size(d, [*old, new], new)) != replicas(new):
            new, scaled = await self._scale(d, new, size), True
        else:
            scaled = False
        if not scaled:
            for rs, size in rollout.old_sizes(d, old, new):
                old[old.index(rs)] = await self._scale(d, rs, size)
                scaled = True
        if not scaled and progress.is_complete(d, d.get("status") or {}):
            await self._clean_up(d, old)
        await self._sync_rollout_status(d, new, old)

    async def _recreate(self, d: Obj, sets: list[Obj]) -> None:
        d, new, old = await self._revisions(d, sets, create=False)
        active = [rs for rs in old if replicas(rs) > 0]
        for rs in active:
            await self._scale(d, rs, 0)
        if active or self._old_pods_running(new, old):
            await self._sync_rollout_status(d, new, old)
            return
        if new is None:
            d, new, old = await self._revisions(d, sets, create=True)
            if new is None:
                return
        if replicas(new) != replicas(d):
            new = await self._scale(d, new, replicas(d))
        if progress.is_complete(d, d.get("status") or {}):
            await self._clean_up(d, old)
        await self._sync_rollout_status(d, new, old)

    def _old_pods_running(self, new: Obj | None, old: list[Obj]) -> bool:
        return any(
            not is_finished(p) for rs in old for p in self.pods.lister.by_index(BY_CONTROLLER, rs["metadata"]["uid"])
        )

    # -- scaling

    def _is_scaling(self, d: Obj, sets: list[Obj]) -> bool:
        """Someone changed `spec.replicas`: the sets still carry the number they were made for."""
        return any(
            (desired := rollout.annotated(rs, rollout.DESIRED)) is not None and desired != replicas(d)
            for rs in sets
            if replicas(rs) > 0
        )

    async def _sync_scale(self, d: Obj, sets: list[Obj]) -> None:
        d, new, old = await self._revisions(d, sets, create=False)
        changed: dict[str, Obj] = {}
        for rs, size in rollout.proportional(d, new, old):
            changed[rs["metadata"]["name"]] = await self._scale(d, rs, size, annotate=True)
        if d["spec"].get("paused") and ROLLBACK not in meta.annotations(d):
            await self._clean_up(d, old)
        old = [changed.get(rs["metadata"]["name"], rs) for rs in old]
        new = changed.get(new["metadata"]["name"], new) if new is not None else None
        await self._put_status(d, progress.status_of(d, new, old, self.clock.now()))

    async def _sync_status_only(self, d: Obj, sets: list[Obj]) -> None:
        d, new, old = await self._revisions(d, sets, create=False)
        await self._put_status(d, progress.status_of(d, new, old, self.clock.now()))

    async def _scale(self, d: Obj, rs: Obj, size: int, *, annotate: bool = False) -> Obj:
        before = replicas(rs)
        wanted = rollout.size_annotations(d)
        annotations = meta.annotations(rs)
        stale = any(annotations.get(k) != v for k, v in wanted.items())
        if before == size and not (annotate and stale):
            return rs
        change = {
            **rs,
            "metadata": {**rs["metadata"], "annotations": {**annotations, **wanted}},
            "spec": {**rs["spec"], "replicas": size},
        }
        rs = await self.client.update(self.set_resource, change)
        if before != size:
            way = "up" if before < size else "down"
            name = rs["metadata"]["name"]
            text = f"Scaled {way} replica set {name} from {before} to {size}"
            self.event(d, "Normal", "ScalingReplicaSet", text)
        return rs

    # -- revisions

    async def _revisions(self, d: Obj, sets: list[Obj], *, create: bool) -> tuple[Obj, Obj | None, list[Obj]]:
        """The Deployment (as it is after what was written here), its new set, and the old ones, oldest first."""
        template = rollout.without_hash(d["spec"]["template"])
        new = next((rs for rs in sets if rollout.without_hash(rs["spec"]["template"]) == template), None)
        old = [rs for rs in sets if rs is not new]
        revision = max([rollout.revision(rs) for rs in old], default=0) + 1
        if new is not None:
            return *await self._refresh(d, new, revision), old
        if not create:
            return d, None, old
        return *await self._create_set(d, old, revision), old

    async def _refresh(self, d: Obj, new: Obj, revision: int) -> tuple[Obj, Obj]:
        annotations = rollout.annotations_for(d, new, revision)
        min_ready = d["spec"].get("minReadySeconds", 0)
        if annotations != meta.annotations(new) or new["spec"].get("minReadySeconds", 0) != min_ready:
            change = {
                **new,
                "metadata": {**new["metadata"], "annotations": annotations},
                "spec": {**new["spec"], "minReadySeconds": min_ready},
            }
            new = await self.client.update(self.set_resource, change)
        d = await self._note_revision(d, meta.annotations(new).get(rollout.REVISION, ""))
        conditions = conditions_of(d)
        if progress.has_deadline(d) and find_condition(conditions, "Progressing") is None:
            text = f'Found new replica set "{new["metadata"]["name"]}"'
            d = await self._progressing(d, "True", "FoundNewReplicaSet", text)
        return d, new

    async def _create_set(self, d: Obj, old: list[Obj], revision: int) -> tuple[Obj, Obj | None]:
        md = d["metadata"]
        status = d.get("status") or {}
        hash = hashing.pod_template_hash(d["spec"]["template"], status.get("collisionCount"))
        template = copied(d["spec"]["template"])
        labels = {**(template.setdefault("metadata", {}).get("labels") or {}), HASH_LABEL: hash}
        template["metadata"]["labels"] = labels
        selector = copied(d["spec"]["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: hash}
        new: Obj = {
            "apiVersion": self.set_resource.api_version,
            "kind": self.set_resource.kind,
            "metadata": {
                "name": f"{md['name'][: NAME_MAX - len(hash) - 1]}-{hash}",
                "namespace": md["namespace"],
                "ownerReferences": [api_ref(d, self.resource)],
                "labels": labels,
            },
            "spec": {
                "replicas": 0,
                "minReadySeconds": d["spec"].get("minReadySeconds", 0),
                "selector": selector,
                "template": template,
            },
        }
        new["spec"]["replicas"] = size = rollout.initial_size(d, old, new)
        new["metadata"]["annotations"] = {
            **rollout.annotations_for(d, new, revision),
            **rollout.size_annotations(d),
        }
        name = new["metadata"]["name"]
        try:
            made = await self.client.create(self.set_resource, new)
        except ApiError as e:
            if e.reason == "AlreadyExists":
                found = await self._existing_set(d, name)
                return await self._note_revision(d, str(revision)), found
            if not namespace_is_terminating(e):
                text = f'Failed to create new replica set "{name}": {e.message}'
                self.event(d, "Warning", "ReplicaSetCreateError", text)
                if progress.has_deadline(d):
                    await self._progressing(d, "False", "ReplicaSetCreateError", text)
            raise
        if size > 0:
            self.event(d, "Normal", "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
        d = await self._note_revision(d, str(revision))
        if progress.has_deadline(d):
            d = await self._progressing(d, "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        return d, made

    async def _existing_set(self, d: Obj, name: str) -> Obj:
        """Ours already (the informer is behind), or another template with the same hash: then count the collision."""
        rs = await self.client.get(self.set_resource, d["metadata"]["namespace"], name)
        same = rollout.without_hash(rs["spec"]["template"]) == rollout.without_hash(d["spec"]["template"])
        if meta.is_controlled_by(rs, d) and same:
            return rs
        status = d.get("status") or {}
        await self._put_status(d, {**status, "collisionCount": status.get("collisionCount", 0) + 1})
        raise ApiError(409, "AlreadyExists", f'replicasets.apps "{name}" already exists')

    async def _clean_up(self, d: Obj, old: list[Obj]) -> None:
        limit = d["spec"].get("revisionHistoryLimit")
        if limit is None or limit >= 2**31 - 1:
            return
        alive = sorted(
            (rs for rs in old if not meta.is_deleting(rs)), key=lambda rs: (rollout.revision(rs), by_age(rs))
        )
        for rs in alive[: max(0, len(alive) - limit)]:
            status = rs.get("status") or {}
            behind = rs["metadata"].get("generation", 0) > status.get("observedGeneration", 0)
            if status.get("replicas", 0) or replicas(rs) or behind:
                continue
            try:
                await self.client.delete(self.set_resource, rs["metadata"]["namespace"], rs["metadata"]["name"])
            except ApiError as e:
                if e.code != 404:
                    raise

    async def _rollback(self, d: Obj, sets: list[Obj]) -> None:
        """The old way of asking for a rollback, by annotation."""
        d, new, old = await self._revisions(d, sets, create=True)
        every = [*old, new] if new is not None else old
        annotations = {k: v for k, v in meta.annotations(d).items() if k != ROLLBACK}
        text = meta.annotations(d).get(ROLLBACK, "")
        wanted = int(text) if text.isdigit() else -1
        if wanted == 0:
            wanted = sorted((rollout.revision(rs) for rs in every), reverse=True)[1] if len(every) > 1 else -1
        target = next((rs for rs in every if rollout.revision(rs) == wanted), None)
        change = {**d, "metadata": {**d["metadata"], "annotations": annotations}}
        if target is None:
            text = "Unable to find the revision to rollback to."
            self.event(d, "Warning", "DeploymentRollbackRevisionNotFound", text)
        elif rollout.without_hash(target["spec"]["template"]) == rollout.without_hash(d["spec"]["template"]):
            text = f'The rollback revision contains the same template as current deployment "{d["metadata"]["name"]}"'
            self.event(d, "Warning", "DeploymentRollbackTemplateUnchanged", text)
        else:
            template = copied(target["spec"]["template"])
            template["metadata"]["labels"].pop(HASH_LABEL, None)
            change["spec"] = {**d["spec"], "template": template}
            kept = {k: v for k, v in annotations.items() if k in rollout.NOT_COPIED}
            theirs = {k: v for k, v in meta.annotations(target).items() if k not in rollout.NOT_COPIED}
            change["metadata"]["annotations"] = {**kept, **theirs}
            text = f'Rolled back deployment "{d["metadata"]["name"]}" to revision {wanted}'
            self.event(d, "Normal", "DeploymentRollback", text)
        await self.client.update(self.resource, change)

    # -- status

    async def _note_revision(self, d: Obj, revision: str) -> Obj:
        if not revision or meta.annotations(d).get(rollout.REVISION) == revision:
            return d
        annotations = {**meta.annotations(d), rollout.REVISION: revision}
        return await self.client.update(self.resource, {**d, "metadata": {**d["metadata"], "annotations": annotations}})

    async def _note_pause(self, d: Obj) -> Obj:
        if not progress.has_deadline(d):
            return d
        condition = find_condition(conditions_of(d), "Progressing")
        reason = condition.get("reason") if condition else None
        if reason == "ProgressDeadlineExceeded":
            return d
        if d["spec"].get("paused") and reason != "DeploymentPaused":
            return await self._progressing(d, "Unknown", "DeploymentPaused", "Deployment is paused")
        if not d["spec"].get("paused") and reason == "DeploymentPaused":
            return await self._progressing(d, "Unknown", "DeploymentResumed", "Deployment is resumed")
        return d

    async def _progressing(self, d: Obj, status: str, reason: str, message: str) -> Obj:
        new = progress.condition("Progressing", status, reason, message, self.clock.now())
        conditions = put_condition(conditions_of(d), new)
        return await self._put_status(d, {**(d.get("status") or {}), "conditions": conditions})

    async def _sync_rollout_status(self, d: Obj, new: Obj | None, old: list[Obj]) -> None:
        now = self.clock.now()
        status = progress.rollout_status(d, new, old, now)
        await self._put_status(d, status)
        if (wait_s := progress.check_in(d, status, now)) is not None:
            self.queue.add_after(meta.key(d), wait_s)

    async def _put_status(self, d: Obj, status: Obj) -> Obj:
        status = compact(status, keep=("terminatingReplicas", "collisionCount"))
        if status == (d.get("status") or {}):
            return d
        return await self.client.update_status(self.resource, {**d, "status": status})
