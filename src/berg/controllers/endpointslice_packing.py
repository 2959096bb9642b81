"""How endpoints are packed into slices with as few and as small changes as can be. No I/O.

An endpoint that is in a slice stays there. New ones go first into slices that change anyway, then whole new
slices are filled; what is left over goes into the slice that it fills best, else into a new one.

Source: k8s.io/endpointslice reconciler.go, reconcileByPortMapping.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from berg.machinery import meta
from berg.machinery.status import Obj

MAX_ENDPOINTS = 100


@dataclass(slots=True)
class Desired:
    """All endpoints that have these ports."""

    ports: list[Obj]
    endpoints: list[Obj] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    create: list[Obj] = field(default_factory=list)
    update: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)

    def extend(self, other: Plan) -> None:
        self.create += other.create
        self.update += other.update
        self.delete += other.delete


def _identity(endpoint: Obj) -> tuple[Any, ...]:
    ref = endpoint.get("targetRef") or {}
    return tuple(endpoint["addresses"]), endpoint.get("hostname"), endpoint.get("nodeName"), ref.get("uid")


def _ports_key(ports: list[Obj] | None) -> str:
    return repr(
        sorted((p.get("name", ""), p.get("port"), p.get("protocol"), p.get("appProtocol")) for p in ports or ())
    )


def plan(
    address_type: str,
    existing: list[Obj],
    desired: list[Desired],
    labels: dict[str, str],
    annotations: dict[str, str] | None = None,
    *,
    placeholder: bool = True,
) -> Plan:
    """What to do so that `existing` slices of one family hold `desired`. Without any endpoint one empty slice
    remains, if `placeholder`: a service without endpoints can be told from one that no one has looked at."""
    by_ports: dict[str, list[Obj]] = {}
    for s in existing:
        by_ports.setdefault(_ports_key(s.get("ports")), []).append(s)
    todo = Plan()
    for d in desired:
        if d.endpoints:
            slices = by_ports.pop(_ports_key(d.ports), [])
            todo.extend(_pack(address_type, slices, d, labels, annotations))
    for key, slices in by_ports.items():
        if key == _ports_key([]) and placeholder and not todo.create and len(slices) == len(existing) == 1:
            s = slices[0]
            if not s.get("endpoints") and meta.labels(s) == labels:
                return todo
        todo.delete += slices
    if placeholder and len(existing) == len(todo.delete) and not todo.create:
        todo.create.append(_slice(address_type, [], []))
    return todo


def _pack(
    address_type: str, slices: list[Obj], d: Desired, labels: dict[str, str], annotations: dict[str, str] | None
) -> Plan:
    wanted = {_identity(e): e for e in d.endpoints}
    changed: dict[str, list[Obj]] = {}
    kept: dict[str, list[Obj]] = {}
    for s in slices:
        name = s["metadata"]["name"]
        before = s.get("endpoints") or []
        after = [wanted.pop(_identity(e)) for e in before if _identity(e) in wanted]
        stale = meta.labels(s) != labels or (annotations is not None and meta.annotations(s) != annotations)
        if after != before or stale:
            changed[name] = after
        else:
            kept[name] = after
    new = list(wanted.values())
    todo = Plan()
    for after in sorted(changed.values(), key=len, reverse=True):
        room = MAX_ENDPOINTS - len(after)
        after += new[:room]
        del new[:room]
    while len(new) >= MAX_ENDPOINTS:
        todo.create.append(_slice(address_type, d.ports, new[:MAX_ENDPOINTS]))
        del new[:MAX_ENDPOINTS]
    if new:
        fitting = [(len(v), n) for n, v in kept.items() if len(v) + len(new) <= MAX_ENDPOINTS]
        if fitting:
            _, name = max(fitting)
            changed[name] = kept.pop(name) + new
        else:
            todo.create.append(_slice(address_type, d.ports, new))
    for s in slices:
        after_or_none = changed.get(s["metadata"]["name"])
        if after_or_none is None:
            continue
        if not after_or_none:
            todo.delete.append(s)
        else:
            md = {**s["metadata"], "labels": labels}
            if annotations is not None:
                md["annotations"] = annotations
            todo.update.append({**s, "metadata": md, "endpoints": after_or_none})
    return todo


def _slice(address_type: str, ports: list[Obj], endpoints: list[Obj]) -> Obj:
    return {"addressType": address_type, "ports": ports, "endpoints": endpoints}
