"""Tables and metadata-only shapes: what `kubectl get` prints, computed here.

Source: k8s.io/apiserver pkg/endpoints/handlers/response.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from berg.apiserver.http.message import Request
from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Strategy
from berg.machinery import status
from berg.machinery.status import Obj

_INCLUDE = ("", "None", "Metadata", "Object")


def _default_columns() -> Sequence[Column]:
    return (Column("Name", lambda o: o["metadata"].get("name", ""), format="name"), cells.AGE)


def definitions(columns: Sequence[Column]) -> list[Obj]:
    return [
        {
            "name": c.name,
            "type": c.type,
            "format": c.format or ("name" if c.name == "Name" else ""),
            "description": c.description,
            "priority": c.priority,
        }
        for c in columns
    ]


def included(request: Request) -> str:
    """`None`, `Metadata` or `Object`: what each row carries. Raises BadRequest."""
    wanted = request.arg("includeObject") if request.raw_query else ""
    if wanted not in _INCLUDE:
        why = f"includeObject: Invalid value: \"{wanted}\": must be 'Metadata', 'Object', 'None', or empty"
        raise status.bad_request(f"Unable to convert to Table as requested: {why}")
    return wanted or "Metadata"


def table(
    strategy: Strategy,
    objs: Iterable[Obj],
    metadata: Obj,
    include: str,
    *,
    version: str = "v1",
    with_columns: bool = True,
) -> Obj:
    columns = strategy.columns or _default_columns()
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "columnDefinitions": definitions(columns) if with_columns else None,
        "rows": [_row(strategy, columns, obj, include, version) for obj in objs],
    }


def _row(strategy: Strategy, columns: Sequence[Column], obj: Obj, include: str, version: str) -> Obj:
    values: list[Any] = []
    for column in columns:
        try:
            values.append(column.value(obj))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            values.append("<unknown>")
    row: Obj = {"cells": values}
    if conditions := strategy.row_conditions(obj):
        row["conditions"] = conditions
    if include == "Metadata":
        row["object"] = partial(obj, version)
    elif include == "Object":
        row["object"] = obj
    else:
        row["object"] = None
    return row


def partial(obj: Obj, version: str = "v1") -> Obj:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj.get("metadata") or {},
    }


def partial_list(objs: Iterable[Obj], metadata: Obj, version: str = "v1") -> Obj:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "items": [partial(o, version) for o in objs],
    }
