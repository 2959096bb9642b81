"""ResourceQuotas: what is used, counted anew. Admission charges what is created; this gives back what went.

A quota is counted when it changes and when something that it counts is deleted or shrinks; all of them once in
five minutes, should anything have been missed. What a quota counts is watched only as long as some quota does.

Source: pkg/controller/resourcequota.
"""

from __future__ import annotations

from berg.client.informer import Informer
from berg.controllers.context import APIController, Context
from berg.controllers.pods import is_finished
from berg.machinery import meta, quantity
from berg.machinery import quotas as counting
from berg.machinery.resources import Resource, builtin, resource
from berg.machinery.status import Obj

WHOLE = ("pods", "services", "persistentvolumeclaims", counting.DEVICE_CLAIMS)
"""of these more than their number is counted"""


class ResourceQuotaController(APIController):
    name = "resourcequota-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("resourcequotas")
        self.quotas = ctx.informer("resourcequotas")
        self.informers: dict[str, Informer] = {}
        self.quotas.add_handler(self._quota, self._quota_changed)

    async def start(self) -> None:
        await super().start()
        self.spawn(self._resync(), "resync")

    async def _resync(self) -> None:
        while True:
            await self.clock.sleep(self.ctx.config.resource_quota_sync_period_s)
            for quota in self.quotas.lister:
                self.enqueue(quota)

    def _quota(self, quota: Obj) -> None:
        self.enqueue(quota)

    def _quota_changed(self, old: Obj, new: Obj) -> None:
        # Admission changes `used` all the time; that is its count, not a reason for another.
        if old["spec"] != new["spec"] or (old.get("status") or {}).get("hard") != (new.get("status") or {}).get("hard"):
            self.enqueue(new)

    def _freed(self, name: str, obj: Obj) -> None:
        for quota in self.quotas.lister.list(meta.namespace(obj)):
            if any(counting.resource_of(h) == name for h in quota["spec"].get("hard") or ()):
                self.enqueue(quota)

    def _changed(self, name: str, old: Obj, new: Obj) -> None:
        ended = is_finished(new) and not is_finished(old) if name == "pods" else old.get("spec") != new.get("spec")
        if name == "persistentvolumeclaims":
            ended = ended or counting.attributes_classes(old) != counting.attributes_classes(new)
        if ended or meta.is_deleting(old) != meta.is_deleting(new):
            self._freed(name, new)

    async def _informer(self, name: str) -> Informer | None:
        """For `pods`, `deployments.apps`, `widgets.example.com`; None when there is no such resource."""
        if name not in self.informers:
            r = await self._resource(name)
            if r is None or name in self.informers:
                return self.informers.get(name)
            informer = self.ctx.informers.existing(r) if name not in WHOLE else self.ctx.informers.informer(r)
            if informer is None:
                informer = self.ctx.informers.informer(r, metadata_only=True)
            informer.add_handler(
                None, lambda old, new: self._changed(name, old, new), lambda obj: self._freed(name, obj)
            )
            informer.start()
            self.informers[name] = informer
        return self.informers[name]

    async def reconcile(self, key: str) -> None:
        quota = self.quotas.lister.get_key(key)
        if quota is None:
            return
        hard: dict[str, str] = {k: quantity.canonical(v) for k, v in (quota["spec"].get("hard") or {}).items()}
        used = dict.fromkeys(hard, counting.ZERO)
        now, scopes = self.clock.now(), counting.selectors(quota)
        for name in {counting.resource_of(h) for h in hard}:
            informer = await self._informer(name)
            if informer is None:
                continue
            await informer.synced.wait()
            for obj in informer.lister.list(meta.namespace(quota)):
                if not all(counting.in_scope(name, s, obj) for s in scopes):
                    continue
                for what, amount in counting.usage(name, obj, now).items():
                    if what in used:
                        used[what] = used[what] + amount
        old = quota.get("status") or {}
        status = {"hard": hard, "used": {k: str(v) for k, v in used.items()}}
        if status != {"hard": old.get("hard") or {}, "used": old.get("used") or {}}:
            await self.client.update_status(self.resource, {**quota, "status": status})

    async def _resource(self, name: str) -> Resource | None:
        plural, _, group = name.partition(".")
        if (r := builtin().preferred(group, plural)) is not None:
            return r
        for r in (await self.ctx.discover()).preferred():
            if (r.plural, r.group) == (plural, group) and r.namespaced:
                return r
        return None
