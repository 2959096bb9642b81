"""Writing objects through their strategies, without a server."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

import berg.apiserver.kinds  # noqa: F401
from berg.apiserver.http.message import User
from berg.apiserver.registry.strategy import Context, Strategy, strategy_of
from berg.machinery.clock import FakeClock
from berg.machinery.resources import Resource, resource
from berg.machinery.status import Obj


def read(text: str) -> Obj:
    found: Obj = yaml.safe_load(text)
    return found


def context(kind: str | Resource, subresource: str = "") -> Context:
    r = resource(kind) if isinstance(kind, str) else kind
    return Context(r, "ns", User("alice"), subresource, clock=FakeClock())


def strategy(kind: str) -> Strategy:
    return strategy_of(resource(kind))


def made(kind: str, spec: Any = None, **more: Any) -> Obj:
    """An object as a client sends it, its defaults filled in."""
    r = resource(kind)
    metadata: Obj = {"name": "x", "uid": "u-1"}
    if r.namespaced:
        metadata["namespace"] = "ns"
    metadata.update(more.pop("metadata", {}))
    obj: Obj = {"apiVersion": r.api_version, "kind": r.kind, "metadata": metadata, **copy.deepcopy(more)}
    if spec is not None:
        obj["spec"] = read(spec) if isinstance(spec, str) else copy.deepcopy(spec)
    strategy(kind).default(obj)
    return obj


def faults(kind: str, obj: Obj) -> list[str]:
    """Of creating it."""
    obj = copy.deepcopy(obj)
    s, ctx = strategy(kind), context(kind)
    s.prepare_for_create(ctx, obj)
    return [str(e) for e in s.validate(ctx, obj)]


def update_faults(kind: str, old: Obj, change: Mapping[str, Any], subresource: str = "") -> list[str]:
    """Of replacing what is at each dotted path by a value."""
    s, ctx = strategy(kind), context(kind, subresource)
    old = copy.deepcopy(old)
    s.prepare_for_create(context(kind), old)
    new = copy.deepcopy(old)
    for path, value in change.items():
        put(new, path, value)
    s.default(new)
    if subresource == "status":
        s.prepare_status_update(ctx, new, old)
        return [str(e) for e in s.validate_status_update(ctx, new, old)]
    s.prepare_for_update(ctx, new, old)
    return [str(e) for e in s.validate_update(ctx, new, old)]


def put(obj: Any, path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        obj = obj[int(step)] if isinstance(obj, list) else obj.setdefault(step, {})
    if isinstance(obj, list):
        obj[int(last)] = value
    elif value is None:
        obj.pop(last, None)
    else:
        obj[last] = value


def cells(kind: str, obj: Obj) -> dict[str, Any]:
    return {c.name: c.value(obj) for c in strategy(kind).columns}
