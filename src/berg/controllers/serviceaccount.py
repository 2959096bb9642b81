"""The service account `default` in every namespace. Source: pkg/controller/serviceaccount."""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.controllers.objects import namespace_is_terminating
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


def is_active(ns: Obj | None) -> bool:
    return ns is not None and not meta.is_deleting(ns) and (ns.get("status") or {}).get("phase") != "Terminating"


class ServiceAccountController(APIController):
    name = "serviceaccount-controller"
    component = "service-account-controller"
    workers = 1
    ACCOUNTS = ("default",)

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("serviceaccounts")
        self.namespaces = ctx.informer("namespaces")
        self.accounts = ctx.informer("serviceaccounts")
        self.namespaces.add_handler(self.enqueue, self.enqueue_changed)
        self.accounts.add_handler(None, None, lambda sa: self.queue.add(meta.namespace(sa)))

    async def reconcile(self, key: str) -> None:
        if not is_active(self.namespaces.lister.get(None, key)):
            return
        for name in self.ACCOUNTS:
            if self.accounts.lister.get(key, name) is None:
                try:
                    await self.client.create(self.resource, {"metadata": {"name": name, "namespace": key}})
                except ApiError as e:
                    if e.reason != "AlreadyExists" and not namespace_is_terminating(e):
                        raise
