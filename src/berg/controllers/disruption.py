"""PodDisruptionBudgets: how many pods may be evicted now. The API server's eviction reads the status kept here.

A pod that an eviction has taken is in `disruptedPods` until it is seen to be deleted; it does not count as healthy.

Source: pkg/controller/disruption/disruption.go.
"""

from __future__ import annotations

from datetime import timedelta

from berg.controllers.context import APIController, Context
from berg.controllers.objects import compact, conditions_of, find_condition, scaled, time_of
from berg.controllers.pods import condition as pod_condition
from berg.controllers.pods import is_finished, is_ready
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

DELETION_TIMEOUT_S = 120.0
STALE_S = 120.0
ENOUGH = ("True", "SufficientPods", "")
NOT_ENOUGH = ("False", "InsufficientPods", "")


class DisruptionController(APIController):
    name = "disruption-controller"
    component = "controllermanager"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("poddisruptionbudgets.policy")
        self.budgets, self.pods = ctx.informer("poddisruptionbudgets.policy"), ctx.informer("pods")
        self.sets = ctx.informer("replicasets.apps")
        self.scales = {
            "ReplicaSet": self.sets,
            "Deployment": ctx.informer("deployments.apps"),
            "StatefulSet": ctx.informer("statefulsets.apps"),
            "ReplicationController": ctx.informer("replicationcontrollers"),
        }
        self.stale = self.add_loop(self.clear_stale, workers=1)
        self.follow(self.budgets)
        self.pods.add_handler(self._pod, self._pod_changed, self._pod)

    def _pod(self, pod: Obj) -> None:
        for pdb in self._matching(pod):
            self.enqueue(pdb)
        if self._is_target(pod):
            self.stale.add(meta.key(pod))

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        if meta.labels(old) != meta.labels(new):
            self._pod(old)
        self._pod(new)

    def _matching(self, pod: Obj) -> list[Obj]:
        labels = meta.labels(pod)
        return [b for b in self.budgets.lister.list(meta.namespace(pod)) if _selector(b).matches(labels)]

    async def reconcile(self, key: str) -> None:
        pdb = self.budgets.lister.get_key(key)
        if pdb is None:
            return
        try:
            await self._sync(key, pdb)
        except ApiError as e:
            if e.reason in ("Conflict", "NotFound"):
                raise
            status = dict(pdb.get("status") or {})
            status["disruptionsAllowed"] = 0  # in doubt, nothing may be evicted
            now = rfc3339(self.clock.now())
            status["conditions"] = _conditions(pdb, ("False", "SyncFailed", e.message), now)
            await self._put(pdb, status)

    async def _sync(self, key: str, pdb: Obj) -> None:
        pods = [p for p in self.pods.lister.list(meta.namespace(pdb), _selector(pdb)) if not is_finished(p)]
        if not pods:
            self.event(pdb, "Normal", "NoPods", "No matching pods found")
        expected, desired = await self._expected(pdb, pods)
        now = self.clock.now()
        disrupted: dict[str, str] = {}
        for pod in pods:
            at = ((pdb.get("status") or {}).get("disruptedPods") or {}).get(meta.name(pod))
            if at is None or meta.is_deleting(pod):
                continue
            since = time_of(at)
            if since is None or since + timedelta(seconds=DELETION_TIMEOUT_S) < now:
                text = f"Pod was expected by PDB {key} to be deleted but it wasn't"
                self.event(pod, "Warning", "NotDeleted", text)
                continue
            disrupted[meta.name(pod)] = at
            self.queue.add_after(key, DELETION_TIMEOUT_S - (now - since).total_seconds() + 1)
        healthy = sum(is_ready(p) and not meta.is_deleting(p) and meta.name(p) not in disrupted for p in pods)
        allowed = max(0, healthy - desired) if expected > 0 else 0
        status: Obj = {
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptedPods": disrupted,
            "observedGeneration": pdb["metadata"].get("generation", 0),
            "conditions": _conditions(pdb, ENOUGH if allowed > 0 else NOT_ENOUGH, rfc3339(now)),
        }
        await self._put(pdb, status)

    async def _put(self, pdb: Obj, status: Obj) -> None:
        status = compact(status, keep=("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"))
        if status != (pdb.get("status") or {}):
            await self.client.update_status(self.resource, {**pdb, "status": status})

    async def _expected(self, pdb: Obj, pods: list[Obj]) -> tuple[int, int]:
        """How many pods there should be, and how many of them healthy."""
        spec = pdb["spec"]
        at_most, at_least = spec.get("maxUnavailable"), spec.get("minAvailable")
        if isinstance(at_least, int):
            return len(pods), at_least
        total = await self._scale(pdb, pods)
        if at_most is not None:
            return total, max(0, total - scaled(at_most, total, round_up=True))
        return total, scaled(at_least, total, round_up=True)

    async def _scale(self, pdb: Obj, pods: list[Obj]) -> int:
        sizes: dict[str, int] = {}
        asked: set[str] = set()
        unmanaged = False
        for pod in pods:
            ref = meta.owner_controller(pod)
            if ref is None:
                unmanaged = True
            elif ref["uid"] not in asked:
                asked.add(ref["uid"])
                # Several sets of one Deployment are one controller.
                uid, size = await self._size(meta.namespace(pod), ref, meta.name(pod))
                sizes[uid] = size
        if unmanaged:
            text = (
                f"Pods selected by this PodDisruptionBudget (selector: {_go_selector(pdb)}) were found to be "
                "unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in "
                'undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to '
                "an integer value."
            )
            self.event(pdb, "Warning", "UnmanagedPods", text)
        return sum(sizes.values())

    async def _size(self, namespace: str, ref: Obj, pod: str) -> tuple[str, int]:
        """The UID and size of the controller that decides how many there are."""
        informer = self.scales.get(ref["kind"])
        owner = informer.lister.get(namespace, ref["name"]) if informer is not None else None
        if owner is not None and meta.uid(owner) == ref["uid"]:
            above = meta.owner_controller(owner)
            if ref["kind"] == "ReplicaSet" and above is not None and above["kind"] == "Deployment":
                return await self._size(namespace, above, pod)
            n = owner["spec"].get("replicas")
            return ref["uid"], 1 if n is None else n
        r = await self.ctx.scalable(ref["apiVersion"], ref["kind"])
        if r is None:
            raise ApiError(500, "InternalError", f'found no controllers for pod "{pod}"')
        scale = await self.client.get(r, namespace, ref["name"], subresource="scale")
        return ref["uid"], (scale.get("spec") or {}).get("replicas", 0)

    # -- conditions of pods that were to go and stayed

    def _is_target(self, pod: Obj) -> bool:
        c = pod_condition(pod, "DisruptionTarget")
        return c is not None and c["status"] == "True" and not meta.is_deleting(pod) and not is_finished(pod)

    async def clear_stale(self, key: str) -> None:
        pod = self.pods.lister.get_key(key)
        if pod is None or not self._is_target(pod):
            return
        c = pod_condition(pod, "DisruptionTarget")
        assert c is not None
        since, now = time_of(c.get("lastTransitionTime")), self.clock.now()
        left = STALE_S - (now - since).total_seconds() if since else 0
        if left > 0:
            self.stale.add_after(key, left)
            return
        new = {"type": "DisruptionTarget", "status": "False", "lastTransitionTime": rfc3339(now)}
        conditions = [new if o["type"] == "DisruptionTarget" else o for o in conditions_of(pod)]
        status = {**pod["status"], "conditions": conditions}
        await self.client.update_status(resource("pods"), {**pod, "status": status})


def _selector(pdb: Obj) -> Selector:
    return Selector.of(pdb["spec"].get("selector"))


def _go_selector(pdb: Obj) -> str:
    pairs = ((pdb["spec"].get("selector") or {}).get("matchLabels") or {}).items()
    labels = "".join(f"{k}: {v}," for k, v in sorted(pairs))
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}"
    )


def _conditions(pdb: Obj, says: tuple[str, str, str], now: str) -> list[Obj]:
    status, reason, message = says
    conditions = conditions_of(pdb)
    old = find_condition(conditions, "DisruptionAllowed")
    moved = old is None or old["status"] != status
    new = {
        "type": "DisruptionAllowed",
        "status": status,
        "observedGeneration": pdb["metadata"].get("generation", 0),
        "lastTransitionTime": now if moved or old is None else old.get("lastTransitionTime"),
        "reason": reason,
        "message": message,
    }
    return [*(c for c in conditions if c["type"] != "DisruptionAllowed"), new]
