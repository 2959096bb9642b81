"""From a stored definition to a served resource, while the server runs.

    a definition changes → names checked → conditions written (Established) → resource installed
    it is deleted → its objects deleted → the finalizer removed → resource gone

One task takes the changes in order; a resource is installed in the step after its definition reads as established.

Source: k8s.io/apiextensions-apiserver pkg/controller (status, establish, finalizer), pkg/apiserver.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from berg.apiserver.crd import definition_rules
from berg.apiserver.crd.definition import FINALIZER
from berg.apiserver.crd.scale import CustomScale
from berg.apiserver.registry import delete as deleting
from berg.apiserver.registry.modify import modify
from berg.apiserver.registry.registry import Registry
from berg.machinery import meta as metas
from berg.machinery import schema
from berg.machinery.resources import Resource, Subresource, resource, version_rank
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEvent

if TYPE_CHECKING:
    from berg.apiserver.server import APIServer

log = logging.getLogger(__name__)

RETRY_S = 1.0


class CustomResources:
    def __init__(self, server: APIServer) -> None:
        self._server = server
        self._services = server.services
        self._definitions = server.services.registry(resource("customresourcedefinitions.apiextensions.k8s.io"))
        self._pending: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.installed: dict[str, Obj] = {}
        """definition's name → its spec as it is served"""
        self._gone: dict[str, Obj] = {}

    async def start(self) -> None:
        """Everything that is stored is served when this returns."""
        self._definitions.subscribe(self._changed)
        for crd in self._services.list(self._definitions.storage):
            await self._safely(crd["metadata"]["name"])
        self._server.spawn(self._run())

    def _changed(self, events: Sequence[CacheEvent]) -> None:
        for event in events:
            if event.entry is not None:
                if event.type == "DELETED":
                    self._gone[event.entry.name] = event.entry.obj
                self._pending[event.entry.name] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            names, self._pending = list(self._pending), {}
            for name in names:
                await self._safely(name)

    async def _safely(self, name: str) -> None:
        try:
            await self._sync(name)
        except ApiError as e:
            if e.code == 404:
                return
            log.warning("definition %s: %s", name, e)
            asyncio.get_running_loop().call_later(RETRY_S, self._again, name)
        except Exception:
            log.exception("definition %s", name)

    def _again(self, name: str) -> None:
        self._pending[name] = None
        self._wake.set()

    async def _sync(self, name: str) -> None:
        crd = self._services.get(self._definitions.storage, "", name)
        if crd is None:
            await self._uninstall(name)
            group = name.partition(".")[2]
            for other in self._services.list(self._definitions.storage):  # names may have become free
                if other["spec"]["group"] == group and not _true(other, "NamesAccepted"):
                    self._again(other["metadata"]["name"])
            return
        accepted, conditions = self._names(crd)
        established = _true(crd, "Established")
        all_accepted = all(c["status"] == "True" for c in conditions if c["type"] == "NamesAccepted")
        served = all_accepted or established
        if served:
            if not established:
                conditions.append(
                    {
                        "type": "Established",
                        "status": "True",
                        "reason": "InitialNamesAccepted",
                        "message": "the initial names have been accepted",
                    }
                )
        else:
            conditions.append(
                {
                    "type": "Established",
                    "status": "False",
                    "reason": "NotAccepted",
                    "message": "not all names are accepted",
                }
            )
        if not self._server.read_only:
            await self._write(name, accepted, [*conditions, *_approval(crd)])
        # Only now: who finds the resource served and then updates its definition must not meet our own write.
        if served:
            self._install(crd)
        if crd["metadata"].get("deletionTimestamp") and not self._server.read_only:
            await self._finalize(name)

    # ---- names

    def _names(self, crd: Obj) -> tuple[Obj, list[Obj]]:
        """The names that are free or already its own, and the condition that says so."""
        spec, own = crd["spec"], crd["spec"]["names"]
        taken: set[str] = set()
        kinds: set[str] = set()
        for other in self._services.list(self._definitions.storage):
            if other["metadata"]["name"] == crd["metadata"]["name"] or other["spec"]["group"] != spec["group"]:
                continue
            names = (other.get("status") or {}).get("acceptedNames") or {}
            taken.update(n for n in (names.get("plural"), names.get("singular")) if n)
            taken.update(names.get("shortNames") or ())
            kinds.update(n for n in (names.get("kind"), names.get("listKind")) if n)
        accepted: Obj = dict((crd.get("status") or {}).get("acceptedNames") or {})
        fault: tuple[str, str] | None = None
        checks = (
            ("plural", taken, "PluralConflict"),
            ("singular", taken, "SingularConflict"),
            ("shortNames", taken, "ShortNamesConflict"),
            ("kind", kinds, "KindConflict"),
            ("listKind", kinds, "ListKindConflict"),
        )
        for field, used, reason in checks:  # the last conflict is told
            if field == "shortNames":
                if clash := [s for s in own.get(field) or () if s in used]:
                    fault = (reason, ", ".join(f'"{s}" is already in use' for s in clash))
                elif own.get(field):
                    accepted[field] = own[field]
                else:
                    accepted.pop(field, None)
            elif own.get(field) in used:
                fault = (reason, f'"{own[field]}" is already in use')
            else:
                accepted[field] = own.get(field, "")
        if own.get("categories"):
            accepted["categories"] = own["categories"]
        else:
            accepted.pop("categories", None)
        reason, message = fault or ("NoConflicts", "no conflicts found")
        condition = {
            "type": "NamesAccepted",
            "status": "False" if fault else "True",
            "reason": reason,
            "message": message,
        }
        return accepted, [condition]

    async def _write(self, name: str, accepted: Obj, conditions: list[Obj]) -> None:
        now = self._services.clock.now()

        def change(crd: Obj) -> None:
            state = crd.setdefault("status", {})
            state["acceptedNames"] = accepted
            state["conditions"] = state.get("conditions") or []
            for condition in conditions:
                metas.set_condition(state["conditions"], condition, now)

        await modify(self._definitions, "", name, change)

    # ---- serving

    def _install(self, crd: Obj) -> None:
        from berg.apiserver.crd import conversion
        from berg.apiserver.crd.strategy import CustomStrategy, Version

        name = crd["metadata"]["name"]
        deleting_ = bool(crd["metadata"].get("deletionTimestamp"))
        served = {"spec": crd["spec"], "deleting": deleting_}
        if self.installed.get(name) == served:
            return
        spec = crd["spec"]
        key = (spec["group"], spec["names"]["plural"])
        resources = resources_of(crd)
        stored = next(v for v in spec["versions"] if v["storage"])
        compiled = {v["name"]: Version.of(v) for v in spec["versions"]}
        strategy = CustomStrategy(crd, compiled)
        every = {r.api_version: r for r in resources}
        storage = every.get(f"{spec['group']}/{stored['name']}") or _resource(spec, stored)
        registry = self._services.registries.get(key)
        if registry is None:
            registry = Registry(self._services, storage, strategy, custom=True)
            self._services.registries[key] = registry
        before = self.installed.get(name)
        if _schemas(before["spec"]) != _schemas(spec) if before is not None else _true(crd, "Established"):
            # What has been stored under another schema is pruned and defaulted when it is read.
            registry.schema_revision = int(crd["metadata"]["resourceVersion"])
        registry.strategy = strategy
        registry.storage = storage
        registry.versions = every
        registry.frames.clear()
        registry.custom_types = {
            v["name"]: schema.type_of_crd(
                spec["group"],
                v["name"],
                spec["names"]["kind"],
                (v.get("schema") or {}).get("openAPIV3Schema"),
                preserve_unknown_fields=bool(spec.get("preserveUnknownFields")),
            )
            for v in spec["versions"]
        }
        registry.scale_view = {v["name"]: _scale_view(v) for v in spec["versions"]}
        registry.convert_custom = conversion.converter(registry, crd) if len(spec["versions"]) > 1 else None
        table = self._server.resources.table
        for old in [k for k in table if (k[0], k[2]) == key]:
            del table[old]
        for r in resources:
            table[r.group, r.version, r.plural] = r
        self._warn_of(spec)
        self.installed[name] = served
        self._server.surface_changed()

    def _warn_of(self, spec: Obj, *, served: bool = True) -> None:
        """Clients of deprecated versions are told so, whatever they ask."""
        deprecations = self._server.resources.deprecations
        for version in spec["versions"]:
            place = (spec["group"], version["name"], spec["names"]["plural"])
            deprecations.pop(place, None)
            if served and version.get("deprecated"):
                plain = f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"
                deprecations[place] = version.get("deprecationWarning") or plain

    async def _uninstall(self, name: str) -> None:
        self._gone.pop(name, None)
        served = self.installed.pop(name, None)
        if served is None:
            return
        spec = served["spec"]
        key = (spec["group"], spec["names"]["plural"])
        table = self._server.resources.table
        for old in [k for k in table if (k[0], k[2]) == key]:
            del table[old]
        self._warn_of(spec, served=False)
        registry = self._services.registries.pop(key, None)
        self._server.surface_changed()
        if registry is not None:
            await registry.close()

    def definition_of(self, r: Resource) -> Obj | None:
        """The spec by which a resource is served; None for built-in ones."""
        served = self.installed.get(f"{r.plural}.{r.group}")
        return None if served is None else served["spec"]

    # ---- going away

    async def _finalize(self, name: str) -> None:
        crd = self._services.get(self._definitions.storage, "", name)
        if crd is None or FINALIZER not in (crd["metadata"].get("finalizers") or ()):
            return
        spec = crd["spec"]
        registry = self._services.registries.get((spec["group"], spec["names"]["plural"]))
        if registry is not None and _true(crd, "Established"):
            left = await self._delete_objects(registry)
            if left:
                await self._condition(
                    name, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"
                )
                asyncio.get_running_loop().call_later(RETRY_S, self._again, name)
                return
            await self._condition(name, "False", "InstanceDeletionCompleted", "removed all instances")
        await self._remove_finalizer(name)

    async def _delete_objects(self, registry: Registry) -> int:
        cacher = await registry.open()
        listing = await cacher.list()
        for entry in listing.entries:
            call = self._services.call(registry.storage, entry.namespace, entry.name)
            try:
                await deleting.delete(call, {})
            except ApiError as e:
                if e.code != 404:
                    raise
        return len((await cacher.list()).entries)

    async def _condition(self, name: str, value: str, reason: str, message: str) -> None:
        now = self._services.clock.now()

        def change(crd: Obj) -> None:
            condition = {"type": "Terminating", "status": value, "reason": reason, "message": message}
            state = crd.setdefault("status", {})
            state["conditions"] = state.get("conditions") or []
            metas.set_condition(state["conditions"], condition, now)

        await modify(self._definitions, "", name, change)

    async def _remove_finalizer(self, name: str) -> None:
        from berg.apiserver.registry import update as updating

        call = self._services.call(self._definitions.storage, "", name)

        async def without(current: Obj | None) -> Obj:
            assert current is not None
            finalizers = current["metadata"].get("finalizers") or []
            current["metadata"]["finalizers"] = [f for f in finalizers if f != FINALIZER]
            return current

        await updating.update(call, without)


def _schemas(spec: Obj) -> list[Obj]:
    return [v.get("schema") or {} for v in spec["versions"]]


_APPROVAL = {
    "approved": ("True", "ApprovedAnnotation"),
    "bypassed": ("False", "UnapprovedAnnotation"),
    "missing": ("False", "MissingAnnotation"),
    "invalid": ("False", "InvalidAnnotation"),
}


def _approval(crd: Obj) -> list[Obj]:
    """Groups of Kubernetes' own need its approval."""
    if not definition_rules.is_protected(crd["spec"].get("group") or ""):
        return []
    state, message = definition_rules.approval(crd)
    value, reason = _APPROVAL[state]
    return [{"type": "KubernetesAPIApprovalPolicyConformant", "status": value, "reason": reason, "message": message}]


def _true(crd: Obj, type_: str) -> bool:
    return metas.condition_true(crd, type_)


def _scale_view(version: Obj) -> CustomScale | None:
    scale = (version.get("subresources") or {}).get("scale")
    return None if scale is None else CustomScale(scale)


def resources_of(crd: Obj) -> list[Resource]:
    """One for each served version, the preferred one first."""
    spec = crd["spec"]
    versions = sorted((v for v in spec["versions"] if v["served"]), key=lambda v: version_rank(v["name"]))
    return [_resource(spec, v) for v in versions]


def _resource(spec: Obj, version: Obj) -> Resource:
    own, group, name = spec["names"], spec["group"], version["name"]
    declared = version.get("subresources") or {}
    subs: dict[str, Subresource] = {}
    if "status" in declared:
        subs["status"] = Subresource("status", group, name, own["kind"], ("get", "patch", "update"))
    if "scale" in declared:
        subs["scale"] = Subresource("scale", "autoscaling", "v1", "Scale", ("get", "patch", "update"))
    return Resource(
        group,
        name,
        own["plural"],
        own["kind"],
        spec["scope"] == "Namespaced",
        own.get("singular") or own["kind"].lower(),
        own.get("listKind") or f"{own['kind']}List",
        ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"),
        tuple(own.get("shortNames") or ()),
        tuple(own.get("categories") or ()),
        subs,
    )
