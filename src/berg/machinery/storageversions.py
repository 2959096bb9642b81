"""What the servers that share a store agree on: the status of a StorageVersion.

Source: k8s.io/apiserver pkg/storageversion, SetCommonEncodingVersion.
"""

from __future__ import annotations

from datetime import datetime

from berg.machinery.clock import rfc3339
from berg.machinery.status import Obj


def with_common_version(status: Obj, generation: int, now: datetime) -> Obj:
    """`status` with `commonEncodingVersion` and the condition AllEncodingVersionsEqual as its servers have it."""
    before = status.get("commonEncodingVersion")
    encoded = {s["encodingVersion"] for s in status.get("storageVersions") or ()}
    common = encoded.pop() if len(encoded) == 1 else None
    set_ = "Set" if common else "Unset"
    condition: Obj = {
        "type": "AllEncodingVersionsEqual",
        "status": "True" if common else "False",
        "observedGeneration": generation,
        "lastTransitionTime": rfc3339(now),
        "reason": f"CommonEncodingVersion{set_}",
        "message": f"Common encoding version {set_.lower()}",
    }
    conditions = [c for c in status.get("conditions") or () if c["type"] != condition["type"]]
    old = next((c for c in status.get("conditions") or () if c["type"] == condition["type"]), None)
    if old is not None and old["status"] == condition["status"] and not (before and common and before != common):
        condition["lastTransitionTime"] = old["lastTransitionTime"]
    found = {k: v for k, v in status.items() if k != "commonEncodingVersion"}
    return found | {"conditions": [*conditions, condition]} | ({"commonEncodingVersion": common} if common else {})
