"""`metadata.managedFields`: who owns which fields, read into `Managed` and written again.

A manager is known by its name, operation, subresource and, for updates, API version. Source:
k8s.io/apimachinery pkg/util/managedfields/internal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from berg.machinery.clock import rfc3339
from berg.machinery.patch import fieldset
from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.status import Obj

MAX_UPDATE_MANAGERS = 10
ANCIENT = "ancient-changes"
BEFORE_FIRST_APPLY = "before-first-apply"


class Manager(NamedTuple):
    name: str
    operation: str
    """Apply or Update"""
    api_version: str
    """empty for Apply: an applier stays the same when it moves to another version"""
    subresource: str

    def __str__(self) -> str:
        """As conflicts name it."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


def manager_of(name: str, operation: str, api_version: str, subresource: str) -> Manager:
    return Manager(name or "unknown", operation, "" if operation == "Apply" else api_version, subresource)


@dataclass(slots=True)
class Entry:
    fields: FieldSet
    """never changed in place: it is shared with the stored object"""
    api_version: str
    time: str = ""


Managed = dict[Manager, Entry]


class BadManagedFields(ValueError):
    pass


def read(entries: Any) -> Managed:
    """Raises BadManagedFields."""
    managed: Managed = {}
    for i, entry in enumerate(entries or ()):
        operation = entry.get("operation", "")
        if operation not in ("Apply", "Update"):
            raise BadManagedFields("operation must be `Apply` or `Update`")
        if not entry.get("apiVersion"):
            raise BadManagedFields("apiVersion must not be empty")
        kind = entry.get("fieldsType", "")
        if kind != "FieldsV1":
            raise BadManagedFields(
                f'invalid fieldsType "{kind}" in managed fields entry {i}'
                if kind
                else f"missing fieldsType in managed fields entry {i}"
            )
        fields = entry.get("fieldsV1") or {}
        if not isinstance(fields, dict):
            raise BadManagedFields("error decoding set: not an object")
        who = manager_of(entry.get("manager", ""), operation, entry["apiVersion"], entry.get("subresource", ""))
        managed[who] = Entry(fields, entry["apiVersion"], entry.get("time") or "")
    return managed


def write(managed: Managed) -> list[Obj]:
    """Sorted as upstream sorts: appliers first, then by time, name, version, subresource."""
    return [
        written(who, Entry(fieldset.ordered(entry.fields), entry.api_version, entry.time))
        for who, entry in sorted(
            managed.items(), key=lambda m: (m[0].operation, m[1].time, m[0].name, m[1].api_version, m[0].subresource)
        )
    ]


def written(who: Manager, entry: Entry) -> Obj:
    """One entry; its set is ordered already."""
    found: Obj = {"manager": who.name, "operation": who.operation, "apiVersion": entry.api_version}
    if entry.time:
        found["time"] = entry.time
    found["fieldsType"] = "FieldsV1"
    found["fieldsV1"] = entry.fields
    if who.subresource:
        found["subresource"] = who.subresource
    return found


def is_reset(entries: Any) -> bool:
    """`[]` and `[{}]` ask for the ownership of everything to be forgotten."""
    return isinstance(entries, list) and (not entries or entries == [{}])


def take_fields(managed: Managed, who: Manager, fields: FieldSet, api_version: str, now: datetime) -> None:
    """An update has set `fields`; with none, nothing is recorded."""
    if not fields:
        return
    before = managed.get(who)
    merged = fieldset.union(fields, before.fields) if before else fields
    managed[who] = Entry(merged, api_version, rfc3339(now))


def cap_updaters(managed: Managed) -> None:
    """Merges the oldest updaters of a version into one when there are more than `MAX_UPDATE_MANAGERS`."""
    updaters = [who for who in managed if who.operation == "Update"]
    count = len(updaters)
    if count <= MAX_UPDATE_MANAGERS:
        return
    updaters.sort(key=lambda who: (managed[who].time, who))
    first: dict[str, Manager] = {}
    for who in updaters:
        if count <= MAX_UPDATE_MANAGERS:
            break
        entry = managed[who]
        if entry.api_version not in first:
            first[entry.api_version] = who
            continue
        bucket = Manager(ANCIENT, "Update", entry.api_version, "")
        if bucket not in managed:
            managed[bucket] = managed.pop(first[entry.api_version])
        managed[bucket] = Entry(fieldset.union(entry.fields, managed[bucket].fields), entry.api_version, entry.time)
        if who != bucket:
            del managed[who]
        count -= 1
