"""StorageVersions: only a table.

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
    status_metadata = ()
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("CommonEncodingVersion", cells.at("status.commonEncodingVersion", "<unset>")),
        Column("StorageVersions", _versions),
        cells.AGE,
    ]
