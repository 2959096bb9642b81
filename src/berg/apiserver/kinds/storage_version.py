"""StorageVersions and StorageVersionMigrations: only tables.

Source: kubernetes pkg/printers.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Strategy, strategy_for
from berg.machinery.status import Obj


def _versions(obj: Obj) -> str:
    found = (obj.get("status") or {}).get("storageVersions") or ()
    return cells.some([f"{v.get('apiServerID', '')}={v.get('encodingVersion', '')}" for v in found])


@strategy_for("internal.apiserver.k8s.io", "storageversions")
class StorageVersionStrategy(Strategy):
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("CommonEncodingVersion", cells.at("status.commonEncodingVersion", "<unset>")),
        Column("StorageVersions", _versions),
        cells.AGE,
    ]


def _migrated(obj: Obj) -> str:
    resource = (obj.get("spec") or {}).get("resource") or {}
    name, group = resource.get("resource") or "", resource.get("group") or ""
    return f"{name}.{group}" if group else name


def _state(obj: Obj) -> str:
    state = "Unknown"
    for c in (obj.get("status") or {}).get("conditions") or ():
        if c.get("status") == "True" and c.get("type") in ("Running", "Failed", "Succeeded"):
            state = c["type"]
    return state


@strategy_for("storagemigration.k8s.io", "storageversionmigrations")
class StorageVersionMigrationStrategy(Strategy):
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [Column("Name", cells.name), Column("Resource", _migrated), Column("Status", _state)]
