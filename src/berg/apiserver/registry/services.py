"""All registries of a server, and what code inside the server sees of it: reads from memory, privileged writes.

This is the `Api` of admission plugins and the `services` of strategies.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from berg.apiserver.auth.authorization import Answer, Authorizer, AuthzAttributes, settled
from berg.apiserver.config import Config
from berg.apiserver.http.hooks import Hooks
from berg.apiserver.http.message import User
from berg.apiserver.registry import conversion
from berg.apiserver.registry import create as creating
from berg.apiserver.registry import delete as deleting
from berg.apiserver.registry import update as updating
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.negotiation import PROTOBUF
from berg.apiserver.registry.registry import Registry, run_now
from berg.apiserver.registry.strategy import Context, Strategy, strategy_of
from berg.machinery.clock import Clock
from berg.machinery.features import FeatureGates
from berg.machinery.metrics import Registry as Metrics
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import Cacher
from berg.storage.transform import Transformer

Objects = list[Obj]

SYSTEM = User("system:apiserver", groups=("system:masters", "system:authenticated"))


class Services:
    def __init__(self, config: Config, store: Any) -> None:
        self.config = config
        self.clock: Clock = config.clock
        self.store = store
        self.store_of: dict[tuple[str, str], Any] = {}
        """(group, plural) → where a resource is that is not in `store`, set by the server"""
        self.admission: Any = None
        """the AdmissionChain, set by the server"""
        self.authorizer: Authorizer | None = None
        self.tokens: Any = None
        """signs and verifies service-account tokens, set by the server"""
        self.encryption: Any = None
        """encryption at rest, set by the server"""
        self.tracing: Any = None
        """OpenTelemetry, set by the server when it is configured"""
        self.hooks = Hooks(self)
        """asks webhooks; closed by the server"""
        self.service_allocation: Any = None
        """cluster IPs and node ports, set by the server"""
        self.metrics = Metrics(config.disabled_metrics)
        """what this server tells of itself; each part puts in what it counts"""
        self.features = FeatureGates(config.feature_gates)
        self.cbor = self.features.enabled("CBORServingAndStorage")
        self.secure_port = config.secure_port if config.secure_port > 0 else 6443
        self.instance = str(uuid.uuid4())
        self.spawn: Callable[[Coroutine[Any, Any, None]], None] = _not_running
        """runs something beside the server until it stops, set by the server"""
        self.registries: dict[tuple[str, str], Registry] = {}
        """(group, plural) → registry; several groups may share one"""

    # ---- registries

    def install(self, resources: Iterable[Resource]) -> None:
        """Makes the registries of built-in resources; the first version of each is the preferred one."""
        for resource in resources:
            if "list" not in resource.verbs:
                continue
            name = (resource.group, resource.plural)
            stored = conversion.STORED_AS.get(name, name)
            registry = self.registries.get(stored)
            if registry is None:
                if stored != name:
                    continue
                registry = Registry(self, resource, strategy_of(resource))
            elif conversion.STORAGE_VERSIONS.get(stored) == resource.version:
                registry.storage = resource
            registry.versions[resource.api_version] = resource
            self.registries[name] = self.registries[stored] = registry

    def storage_of(self, resource: Resource) -> Resource | None:
        """The resource in the version that it is stored in; None when it is not stored."""
        registry = self.registries.get((resource.group, resource.plural))
        return None if registry is None else registry.storage

    def registry(self, resource: Resource) -> Registry:
        return self.registries[resource.group, resource.plural]

    async def open_cacher(self, registry: Registry) -> Cacher:
        from berg.storage.cacher import open_cacher

        storage = registry.storage
        cacher = open_cacher(
            self.store_of.get((storage.group, storage.plural), self.store),
            registry.prefix,
            namespaced=storage.namespaced,
            api_version=storage.api_version,
            kind=storage.kind,
            transformer=self._transformer(registry),
            adopt=None if registry.custom else partial(_adopt, registry),
        )
        await cacher.start()
        return cacher

    def _transformer(self, registry: Registry) -> Transformer | None:
        """How this resource's objects are written to the store: encoded, encrypted."""
        storage = registry.storage
        found: Transformer | None = None
        if self.encryption is not None:
            found = self.encryption.transformer(storage.group, storage.plural)
        if self.config.storage_media_type == PROTOBUF and not registry.custom:
            from berg.storage.transform import Protobuf

            found = Protobuf(found)
        elif self.cbor and registry.custom:
            from berg.storage.transform import CBOR

            found = CBOR(found)
        return found

    def rotated(self) -> None:
        """A key of encryption has changed: what is stored now is written again by the next update, whatever it
        changes."""
        for registry in set(self.registries.values()):
            if registry.cacher is not None:
                registry.rotated_at = registry.cacher.revision

    async def open(self, *resources: Resource) -> None:
        """Reads what has been stored of these; those without storage are passed over."""
        found = {self.registries.get((r.group, r.plural)) for r in resources}
        await asyncio.gather(*(registry.open() for registry in found if registry is not None))

    async def close(self) -> None:
        await self.hooks.close()
        for registry in set(self.registries.values()):
            await registry.close()

    def ttl_s(self, registry: Registry) -> int:
        return self.config.event_ttl_s if registry.storage.kind == "Event" else 0

    # ---- reading

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        registry = self.registries.get((resource.group, resource.plural))
        if registry is None:
            return None
        entry = _opened(registry).get(registry.key(namespace, name))
        return None if entry is None else entry.obj

    def list(self, resource: Resource, namespace: str | None = None) -> Objects:
        registry = self.registries.get((resource.group, resource.plural))
        if registry is None:
            return []
        return [e.obj for e in run_now(_opened(registry).list(namespace=namespace)).entries]

    def counter(self, resource: Resource) -> Callable[[], int]:
        """Tells how many there are, at no cost."""
        registry = self.registries.get((resource.group, resource.plural))
        return int if registry is None else _opened(registry).counter()

    def by_index(self, resource: Resource, index: str, value: str) -> Objects:
        """What an index of the cacher holds under `value`."""
        listing = run_now(_opened(self.registry(resource)).list(index=(index, value)))
        return [e.obj for e in listing.entries]

    # ---- writing, as the server itself: past authorization and admission, through the strategies

    def call(
        self, resource: Resource, namespace: str, name: str, *, subresource: str = "", user: User = SYSTEM
    ) -> Call:
        registry = self.registry(resource)
        context = Context(registry.storage, namespace, user, subresource, clock=self.clock, services=self)
        return Call(
            registry,
            resource,
            namespace if registry.storage.namespaced else "",
            name,
            user,
            context,
            subresource,
            field_manager="kube-apiserver",
            admission=False,
        )

    async def create(self, resource: Resource, namespace: str, obj: Obj) -> Obj:
        from berg.apiserver.registry import decoding

        call = self.call(resource, namespace, (obj.get("metadata") or {}).get("name", ""))
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, **obj}
        if call.namespace:
            obj["metadata"] = {**obj["metadata"], "namespace": call.namespace}
        obj = decoding.canonical(call.registry, obj, resource)
        return (await creating.create(call, obj)).obj

    async def update(self, resource: Resource, namespace: str, obj: Obj, subresource: str = "") -> Obj:
        from berg.apiserver.registry import decoding

        call = self.call(resource, namespace, obj["metadata"]["name"], subresource=subresource)
        obj = decoding.canonical(call.registry, obj, resource)

        async def replace(_: Obj | None) -> Obj:
            return {**obj, "metadata": dict(obj["metadata"])}

        return (await updating.update(call, replace)).entry.obj

    async def delete(self, resource: Resource, namespace: str, name: str, options: Obj | None = None) -> None:
        await deleting.delete(self.call(resource, namespace, name), options or {})

    # ---- asking

    async def authorize(
        self,
        user: User,
        verb: str,
        resource: Resource,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool:
        asked = AuthzAttributes(
            user, verb, resource.group, resource.version, resource.plural, subresource, namespace, name
        )
        return (await settled(self.decide(asked))).allowed

    def decide(self, asked: AuthzAttributes) -> Answer:
        assert self.authorizer is not None
        return self.authorizer.authorize(asked)

    def strategy(self, resource: Resource) -> Strategy:
        registry = self.registries.get((resource.group, resource.plural))
        return registry.strategy if registry is not None else strategy_of(resource)


def _not_running(coroutine: Coroutine[Any, Any, None]) -> None:
    coroutine.close()
    raise RuntimeError("the server does not run")


def _opened(registry: Registry) -> Cacher:
    if registry.cacher is None:
        raise ApiError(503, "ServiceUnavailable", f"{registry.storage.plural} are not read yet")
    return registry.cacher


def _adopt(registry: Registry, obj: Obj) -> None:
    """An object as somebody else stored it: of another version perhaps, and without what a reader fills in. Upstream's
    decoder fills in defaults whenever it reads, so it stores objects that lack them."""
    conversion.adopt(obj, registry.storage)
    registry.strategy.default(obj)
