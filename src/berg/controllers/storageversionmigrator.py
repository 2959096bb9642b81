"""StorageVersionMigrations: every object of a resource is written once more, so that all are stored in the version and
the encryption of today.

    one for each resource at a time ─► Running (the definition says StorageMigrating) ─► status.resourceVersion
    ─► each object that is not younger is applied unchanged ─► Succeeded or Failed ─► the definition's storedVersions

An object is applied with its uid and resourceVersion and nothing else: who changed or deleted it meanwhile has done
the work already, and the conflict says so.

Source: KEP-4192, pkg/controller/storageversionmigrator.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from berg.controllers.context import APIController, Context
from berg.machinery import meta
from berg.machinery.clock import parse_rfc3339, rfc3339
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

PAGE = 500
PATIENCE = timedelta(minutes=1)
"""a definition may be so new that its resource is not served yet"""
NOWHERE = "Nowhere"
"""no namespace can be called so: listing what it has costs nothing, and tells the resource version"""
VERBS = ("update", "patch", "list")
_LATER = frozenset(("ServerTimeout", "TooManyRequests", "ServiceUnavailable", "InternalError", "Timeout"))


class StorageVersionMigrator(APIController):
    name = "storage-version-migrator-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("storageversionmigrations.storagemigration.k8s.io")
        self.definitions = resource("customresourcedefinitions.apiextensions.k8s.io")
        self.migrations = ctx.informer("storageversionmigrations.storagemigration.k8s.io")
        self.migrations.add_handler(self._changed, lambda old, new: self._changed(new), self._changed)

    def _changed(self, migration: Obj) -> None:
        """Also those of the same resource, which may wait for this one."""
        for other in self.migrations.lister:
            if other["spec"]["resource"] == migration["spec"]["resource"]:
                self.enqueue(other)

    async def reconcile(self, key: str) -> None:
        migration = self.migrations.lister.get_key(key)
        if migration is None:
            return
        running, over = _is(migration, "Running"), _is(migration, "Succeeded") or _is(migration, "Failed")
        if over:
            if running:
                await self._finish(migration)
            return
        if not running:
            if migration is self._next(migration["spec"]["resource"]):
                await self._begin(migration)
            return
        found = await self._find(migration)
        if found is None:
            return
        version = (migration.get("status") or {}).get("resourceVersion")
        if not version:
            listed = await self.client.list(found, NOWHERE if found.namespaced else None, limit=1, metadata_only=True)
            await self._write(migration, resourceVersion=listed["metadata"]["resourceVersion"])
        elif await self._migrate(migration, found, int(version)):
            await self._conclude(migration, "Succeeded", "")

    def _next(self, of: Obj) -> Obj | None:
        """The one to begin: the oldest that waits, when none runs."""
        same = [m for m in self.migrations.lister if m["spec"]["resource"] == of]
        if any(_is(m, "Running") and not _is(m, "Succeeded") and not _is(m, "Failed") for m in same):
            return None
        waiting = [m for m in same if not any(_is(m, c) for c in ("Running", "Succeeded", "Failed"))]
        return min(waiting, key=lambda m: (m["metadata"]["creationTimestamp"], m["metadata"]["name"]), default=None)

    async def _find(self, migration: Obj) -> Resource | None:
        """What is to be migrated; a migration that cannot be is failed."""
        wanted = migration["spec"]["resource"]
        group, plural = wanted.get("group") or "", wanted["resource"]
        served = (await self.ctx.discover()).preferred()
        found = next((r for r in served if (r.group, r.plural) == (group, plural)), None)
        if found is None:
            age = self.clock.now() - parse_rfc3339(migration["metadata"]["creationTimestamp"])
            if age < PATIENCE:
                self.queue.add_after(meta.key(migration), (PATIENCE - age).total_seconds() / 10 + 1)
            else:
                await self._conclude(migration, "Failed", "resource does not exist in discovery")
        elif not set(VERBS) <= set(found.verbs):
            name = f"{group}/{found.version}, Resource={plural}"
            why = f'resource "{name}" does not support discovery operations: [{" ".join(VERBS)}]'
            await self._conclude(migration, "Failed", why)
            return None
        return found

    async def _migrate(self, migration: Obj, r: Resource, version: int) -> bool:
        """False when it has failed for good. Raises ApiError when it may be tried again: what has been written
        already is younger then, and left alone."""
        more = ""
        while True:
            page = await self.client.list(r, limit=PAGE, continue_=more, metadata_only=True)
            for item in page.get("items") or ():
                md = item["metadata"]
                if int(md["resourceVersion"]) > version:
                    continue
                same = {key: md[key] for key in ("name", "uid", "resourceVersion")}
                patch = {"apiVersion": r.api_version, "kind": r.kind, "metadata": same}
                try:
                    await self.client.patch(
                        r, md.get("namespace"), md["name"], patch, type="apply", field_manager=self.name
                    )
                except ApiError as e:
                    if e.reason == "Conflict":
                        continue
                    if e.reason in _LATER:
                        raise
                    await self._conclude(migration, "Failed", f"migration encountered unhandled error: {e.message}")
                    return False
            more = page["metadata"].get("continue") or ""
            if not more:
                return True

    # ---- telling

    async def _begin(self, migration: Obj) -> None:
        definition = await self._definition(migration)
        if definition is not None:
            name = migration["metadata"]["name"]
            await self._tell(definition, "True", "MigrationRunning", f"Migration {name} is running")
        condition = self._condition("Running", "True", "MigrationRunning", "The migration is running")
        await self._write(migration, conditions=[*_conditions(migration), condition])

    async def _conclude(self, migration: Obj, verdict: str, message: str) -> None:
        condition = self._condition(verdict, "True", f"StorageVersionMigration{verdict}", message)
        await self._write(migration, conditions=[*_conditions(migration), condition])

    async def _finish(self, migration: Obj) -> None:
        definition = await self._definition(migration)
        if definition is not None and not _is(migration, "Succeeded"):
            await self._tell(definition, "False", "MigrationFailed", "The migration has failed")
        elif definition is not None:
            before = next((c for c in _conditions(definition) if c["type"] == "StorageMigrating"), {})
            known = before.get("observedGeneration") == definition["metadata"].get("generation")
            stored = [v["name"] for v in definition["spec"]["versions"] if v.get("storage")] if known else []
            what = "and the stored versions have been updated"
            if not known:
                what = "but the stored versions have not been updated due to a generation mismatch"
            message = f"The migration has succeeded {what}"
            await self._tell(definition, "False", "MigrationSucceeded", message, stored)
        done = self._condition("Running", "False", "MigrationCompleted", "Migration completed")
        conditions = [done if c["type"] == "Running" else c for c in _conditions(migration)]
        await self._write(migration, conditions=conditions)

    async def _definition(self, migration: Obj) -> Obj | None:
        wanted = migration["spec"]["resource"]
        try:
            return await self.client.get(self.definitions, None, f"{wanted['resource']}.{wanted.get('group') or ''}")
        except ApiError as e:
            if e.code == 404:
                return None
            raise

    async def _tell(
        self, definition: Obj, status: str, reason: str, message: str, stored: list[str] | None = None
    ) -> None:
        """On the definition, unless it has changed meanwhile."""
        md = definition["metadata"]
        condition = self._condition("StorageMigrating", status, reason, message)
        condition["observedGeneration"] = md.get("generation", 0)
        applied: Obj = {
            "apiVersion": self.definitions.api_version,
            "kind": self.definitions.kind,
            "metadata": {"name": md["name"], "resourceVersion": md["resourceVersion"]},
            "status": {"conditions": [condition]} | ({"storedVersions": stored} if stored else {}),
        }
        await self.client.patch(
            self.definitions,
            None,
            md["name"],
            applied,
            type="apply",
            subresource="status",
            field_manager="migration-runner-controller",
            force=True,
        )

    def _condition(self, kind: str, status: str, reason: str, message: str) -> Obj:
        now = rfc3339(self.clock.now())
        return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}

    async def _write(self, migration: Obj, **status: object) -> None:
        changed = {**migration, "status": {**(migration.get("status") or {}), **status}}
        await self.client.update(self.resource, changed, subresource="status")


def _conditions(obj: Obj) -> list[Obj]:
    found: list[Obj] = (obj.get("status") or {}).get("conditions") or []
    return found


def _is(obj: Obj, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in _conditions(obj))
