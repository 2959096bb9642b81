"""What every controller is given: the client, shared informers, the clock, settings, event recorders."""

from __future__ import annotations

from typing import Any

from berg.client.controller import Controller
from berg.client.discovery import Discovered, discover
from berg.client.events import EventRecorder
from berg.client.informer import Informer, InformerFactory, without_managed_fields
from berg.client.rest import Client
from berg.controllers.config import Config
from berg.controllers.credentials import Credentials
from berg.machinery import meta
from berg.machinery.clock import Clock
from berg.machinery.metrics import Registry
from berg.machinery.resources import Resource, resource
from berg.machinery.status import Obj


class Context:
    def __init__(self, client: Client, config: Config, clock: Clock, metrics: Registry | None = None) -> None:
        self.client, self.config, self.clock = client, config, clock
        """`client` is that of the controller being made; informers read as the manager"""
        self.credentials = Credentials(client, enabled=config.use_service_account_credentials)
        self.informers = InformerFactory(client, clock, transform=without_managed_fields)
        self.metrics = metrics or Registry()
        self.asked: list[Informer] = []
        """informers asked for since the manager last looked: what one controller needs"""
        self._recorders: dict[str, EventRecorder] = {}
        self._scales: dict[tuple[str, str], Resource | None] = {}

    def informer(self, name: str, **kw: Any) -> Informer:
        """`pods`, `deployments.apps`."""
        informer = self.informers.informer(resource(name), **kw)
        self.asked.append(informer)
        return informer

    def recorder(self, component: str) -> EventRecorder:
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(self.informers.client, component, clock=self.clock)
        return self._recorders[component]

    async def discover(self) -> Discovered:
        return await discover(self.informers.client)

    async def scalable(self, api_version: str, kind: str) -> Resource | None:
        """The resource of `kind`, if it has the scale subresource. What is found is kept."""
        known = (api_version, kind)
        if known not in self._scales:
            group = api_version.rpartition("/")[0]
            found = await self.discover()
            r = found.by_kind(api_version, kind) or found.by_group_kind(group, kind)
            if r is None or "scale" not in r.subresources:
                return None
            self._scales[known] = r
        return self._scales[known]

    async def stop(self) -> None:
        for recorder in self._recorders.values():
            await recorder.stop()
        await self.informers.stop()
        await self.credentials.close()


class APIController(Controller):
    """A controller with its context. `component` is what its events say as their source."""

    component = ""

    def __init__(self, ctx: Context) -> None:
        if (workers := ctx.config.concurrent_syncs.get(self.name)) is not None:
            self.workers = workers
        super().__init__(ctx.clock)
        self.ctx, self.client = ctx, ctx.client

    def event(self, obj: Obj, type: str, reason: str, message: str) -> None:
        self.ctx.recorder(self.component or self.name).event(obj, type, reason, message)

    def enqueue(self, obj: Obj) -> None:
        self.queue.add(meta.key(obj))

    def enqueue_changed(self, old: Obj, new: Obj) -> None:
        self.queue.add(meta.key(new))

    def follow(self, informer: Informer) -> None:
        """Every change of these objects is a reason to reconcile them."""
        informer.add_handler(self.enqueue, self.enqueue_changed, self.enqueue)
