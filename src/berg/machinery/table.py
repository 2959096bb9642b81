"""`meta.k8s.io/v1 Table`: rows and columns instead of objects, as kubectl asks for them.

The registry supplies the columns (anything with name, type, format, description, priority and `value(obj)`), this
room puts the answer together. Source: k8s.io/apimachinery pkg/apis/meta/v1 Table; util/duration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from berg.machinery.clock import parse_rfc3339
from berg.machinery.status import Obj

NAME_TEXT = "Name of the object, unique within its namespace and kind."
AGE_TEXT = "Time since the object was created."


class TableColumn(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def value(self) -> Callable[[Obj], Any]: ...


def table(
    columns: Sequence[TableColumn],
    objects: Iterable[Obj],
    *,
    metadata: Obj | None = None,
    include: str = "Metadata",
    api_version: str = "meta.k8s.io/v1",
    headers: bool = True,
    conditions: Callable[[Obj], list[Obj]] | None = None,
) -> Obj:
    """`include` is what each row carries of its object: None, Metadata or Object (`includeObject` of the query).
    Of a watch only the first event needs `headers`."""
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": metadata or {},
        "columnDefinitions": [definition(c) for c in columns] if headers else None,
        "rows": [row(columns, o, include=include, conditions=conditions, api_version=api_version) for o in objects],
    }


def definition(column: TableColumn) -> Obj:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def row(
    columns: Sequence[TableColumn],
    obj: Obj,
    *,
    include: str = "Metadata",
    conditions: Callable[[Obj], list[Obj]] | None = None,
    api_version: str = "meta.k8s.io/v1",
) -> Obj:
    made: Obj = {"cells": [c.value(obj) for c in columns]}
    if conditions is not None and (found := conditions(obj)):
        made["conditions"] = found
    if include == "Object":
        made["object"] = obj
    elif include != "None":
        made["object"] = partial_metadata(obj, api_version)
    return made


def partial_metadata(obj: Obj, api_version: str = "meta.k8s.io/v1") -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": obj.get("metadata") or {}}


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago, as kubectl shows it: `5m3s`, `12d`; `<unknown>` when there is no time."""
    if not timestamp:
        return "<unknown>"
    try:
        return human_duration((now - parse_rfc3339(timestamp)).total_seconds())
    except ValueError:
        return "<invalid>"


def human_duration(seconds: float) -> str:
    """Two figures at most, and fewer the longer it is."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 120:
        return f"{max(s, 0)}s"
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if minutes < 10:
        return f"{minutes}m" + (f"{s % 60}s" if s % 60 else "")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return f"{days // 365}y" + (f"{days % 365}d" if days % 365 else "")
    return f"{days // 365}y"
