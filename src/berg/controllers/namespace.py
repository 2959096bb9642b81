"""Namespaces that are being deleted: everything in them goes, then their finalizer.

What there is to delete is asked of discovery each time, so that custom and aggregated resources go too. Pods go
first and are waited for: what they need (secrets, config, network policy) must outlive them.

Source: pkg/controller/namespace/deletion.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from berg.client.discovery import Discovered
from berg.controllers.context import APIController, Context
from berg.controllers.objects import conditions_of, copied
from berg.controllers.pods import is_finished
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

FINALIZER = "kubernetes"
FIRST_WAIT_S = 0.2
OK = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


@dataclass(slots=True)
class Outcome:
    """What one pass over a namespace found."""

    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    undiscovered: set[str] = field(default_factory=set)
    estimate_s: float = 0

    @property
    def clean(self) -> bool:
        return not (self.remaining or self.failures or self.undiscovered)


class NamespaceController(APIController):
    name = "namespace-controller"
    workers = 10

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("namespaces")
        self.namespaces = ctx.informer("namespaces")
        self.pods = ctx.informer("pods")
        self.namespaces.add_handler(self._namespace, lambda old, new: self._namespace(new), self._gone)
        self.pods.add_handler(None, None, self._pod_gone)
        self._waits: dict[str, float] = {}

    def _namespace(self, ns: Obj) -> None:
        if meta.is_deleting(ns) and FINALIZER in (ns.get("spec") or {}).get("finalizers", ()):
            self.queue.add(meta.name(ns))

    def _gone(self, ns: Obj) -> None:
        self._waits.pop(meta.name(ns), None)

    def _pod_gone(self, pod: Obj) -> None:
        namespace = meta.namespace(pod)
        if namespace in self._waits and not self.pods.lister.list(namespace):
            self.queue.add(namespace)

    async def reconcile(self, key: str) -> None:
        try:
            ns = await self.client.get(self.resource, None, key)
        except ApiError as e:
            if e.code != 404:
                raise
            self._waits.pop(key, None)
            return
        if not meta.is_deleting(ns) or FINALIZER not in (ns.get("spec") or {}).get("finalizers", ()):
            return
        if (ns.get("status") or {}).get("phase") != "Terminating":
            ns = {**ns, "status": {**(ns.get("status") or {}), "phase": "Terminating"}}
            ns = await self.client.update_status(self.resource, ns)
        outcome = await self._delete_content(key, await self.ctx.discover())
        ns = await self._note(ns, outcome)
        if outcome.clean:
            left = [f for f in ns["spec"]["finalizers"] if f != FINALIZER]
            ns = {**ns, "spec": {**ns["spec"], "finalizers": left}}
            try:
                await self.client.update(self.resource, ns, subresource="finalize")
            except ApiError as e:
                if e.code != 404:
                    raise
            self._waits.pop(key, None)
        elif outcome.failures:
            raise ApiError(500, "InternalError", "; ".join(outcome.failures))
        else:
            # Nothing tells when the last custom resource is gone, so it is looked for, less and less often.
            wait_s = self._waits.get(key, FIRST_WAIT_S)
            self._waits[key] = min(wait_s * 2, max(outcome.estimate_s / 2 + 1, 5.0))
            self.queue.add_after(key, wait_s)

    async def _delete_content(self, namespace: str, found: Discovered) -> Outcome:
        outcome = Outcome(undiscovered=found.failed)
        deletable = [r for r in found.preferred() if r.namespaced and {"list", "delete"} <= set(r.verbs)]
        pods = [r for r in deletable if (r.group, r.plural) == ("", "pods")]
        for r in pods:
            await self._delete_all(namespace, r, outcome)
        if outcome.remaining:
            return outcome
        rest = [r for r in deletable if r not in pods and (r.group, r.plural) != ("events.k8s.io", "events")]
        await asyncio.gather(*(self._delete_all(namespace, r, outcome) for r in rest))
        return outcome

    async def _delete_all(self, namespace: str, r: Resource, outcome: Outcome) -> None:
        is_pods = (r.group, r.plural) == ("", "pods")
        try:
            items = await self._items(namespace, r, whole=is_pods)
            if not items:
                return
            if "deletecollection" in r.verbs:
                await self.client.delete_collection(r, namespace, propagation_policy="Background")
            else:
                for item in items:
                    await self._delete(namespace, r, item)
            items = await self._items(namespace, r, whole=is_pods)
        except ApiError as e:
            if e.code in (404, 405):  # its CRD went meanwhile
                return
            outcome.failures.append(e.message)
            return
        if not items:
            return
        outcome.remaining[f"{r.plural}.{r.group}"] = len(items)
        for item in items:
            for f in item["metadata"].get("finalizers") or ():
                outcome.finalizers[f] = outcome.finalizers.get(f, 0) + 1
            if is_pods and not is_finished(item):
                grace = item["spec"].get("terminationGracePeriodSeconds") or 30
                outcome.estimate_s = max(outcome.estimate_s, grace)

    async def _items(self, namespace: str, r: Resource, *, whole: bool) -> list[Obj]:
        found = await self.client.list(r, namespace, metadata_only=not whole)
        return found.get("items") or []

    async def _delete(self, namespace: str, r: Resource, item: Obj) -> None:
        try:
            await self.client.delete(r, namespace, item["metadata"]["name"], propagation_policy="Background")
        except ApiError as e:
            if e.code != 404:
                raise

    async def _note(self, ns: Obj, outcome: Outcome) -> Obj:
        bad: dict[str, tuple[str, str]] = {}
        if outcome.undiscovered:
            names = ", ".join(sorted(outcome.undiscovered))
            text = f"Discovery failed for some groups, {len(outcome.undiscovered)} failing: {names}"
            bad["NamespaceDeletionDiscoveryFailure"] = ("DiscoveryFailed", text)
        if outcome.failures:
            text = ", ".join(sorted(outcome.failures))
            text = f"Failed to delete all resource types, {len(outcome.failures)} remaining: {text}"
            bad["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", text)
        if outcome.remaining:
            text = ", ".join(f"{r} has {n} resource instances" for r, n in sorted(outcome.remaining.items()))
            bad["NamespaceContentRemaining"] = ("SomeResourcesRemain", f"Some resources are remaining: {text}")
        if outcome.finalizers:
            text = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(outcome.finalizers.items()))
            text = f"Some content in the namespace has finalizers remaining: {text}"
            bad["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", text)
        conditions = copied({"c": conditions_of(ns)})["c"]
        changed = False
        for type, (reason, message) in OK.items():
            status = "False"
            if type in bad:
                status, (reason, message) = "True", bad[type]
            new = {"type": type, "status": status, "reason": reason, "message": message}
            old = next((c for c in conditions if c["type"] == type), None)
            if old is None:
                conditions.append({**new, "lastTransitionTime": rfc3339(self.clock.now())})
                changed = True
            elif any(old.get(k) != v for k, v in new.items()):
                old.update(new, lastTransitionTime=rfc3339(self.clock.now()))
                changed = True
        if not changed:
            return ns
        ns = {**ns, "status": {**(ns.get("status") or {}), "conditions": conditions}}
        return await self.client.update_status(self.resource, ns)
