"""Who leads: one step of an election, decided from the candidates and the Lease as they are now. No I/O.

    nobody leads, the leader is late, or a better one is there → ask all who have not been heard of lately (pingTime)
    → those who answer in time (renewTime) are compared → the Lease gets its holder, or a preferred one

A leader that is to make place is not pushed: it sees `preferredHolder`, renews no more, and the Lease runs out.

Source: KEP-4355; kubernetes pkg/controlplane/controller/leaderelection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from berg.apiserver.kinds.coordination.lease import OLDEST, version_order
from berg.machinery.clock import parse_rfc3339, rfc3339_micro
from berg.machinery.status import Obj

ELECTION = timedelta(seconds=5)
"""how long a candidate has to answer, and how long an answer counts"""
LEASE_DURATION_S = 5
VALID = timedelta(minutes=30)
"""after this a candidate that has not been heard of is none"""


class Undecided(Exception):
    """The candidates contradict one another, or none answered."""


@dataclass(slots=True)
class Step:
    ask: list[Obj] = field(default_factory=list)
    """candidates whose pingTime becomes now"""
    lease: Obj | None = None
    """the spec that the Lease should have"""


def expired(candidate: Obj, now: datetime) -> bool:
    renewed = _time(candidate, "renewTime")
    return renewed is None or renewed + VALID < now


def step(candidates: Sequence[Obj], lease: Obj | None, now: datetime) -> Step:
    """`candidates` are those of this Lease that have not expired. Raises Undecided."""
    if not candidates or not _needed(candidates, lease, now):
        return Step()
    waiting, ask = False, []
    for c in candidates:
        asked, renewed = _time(c, "pingTime"), _time(c, "renewTime")
        answered = asked is None or (renewed is not None and renewed >= asked)
        if not answered and asked is not None and asked + ELECTION > now:
            waiting = True
        elif renewed is not None and renewed + ELECTION > now:
            continue
        elif answered:
            ask.append(c)
    if waiting or ask:
        return Step(ask)
    present = [c for c in candidates if (t := _time(c, "renewTime")) is not None and t + ELECTION > now]
    if not present:
        raise Undecided("no available candidates")
    chosen = strategy(present)
    holder = best(present)["metadata"]["name"] if chosen == OLDEST else None
    return Step(lease=_wanted(lease, chosen, holder, now))


def _needed(candidates: Sequence[Obj], lease: Obj | None, now: datetime) -> bool:
    if lease is None or _late(lease, now) or not (holder := lease["spec"].get("holderIdentity")):
        return True
    for c in candidates:  # all are heard of now and then
        renewed = _time(c, "renewTime")
        if renewed is not None and renewed + VALID / 2 < now:
            return True
    return strategy(candidates) == OLDEST and best(candidates)["metadata"]["name"] != holder


def _late(lease: Obj, now: datetime) -> bool:
    renewed, seconds = _time(lease, "renewTime"), lease["spec"].get("leaseDurationSeconds")
    return renewed is None or seconds is None or renewed + timedelta(seconds=seconds) < now


def strategy(candidates: Sequence[Obj]) -> str:
    """That of the newest program among them; they must agree."""
    newest = max(version_order(c["spec"].get("binaryVersion") or "") for c in candidates)
    wanted = [c for c in candidates if version_order(c["spec"].get("binaryVersion") or "") == newest]
    first = wanted[0]
    for c in wanted[1:]:
        if c["spec"].get("strategy") != first["spec"].get("strategy"):
            raise Undecided(
                f'candidates "{first["metadata"]["name"]}", "{c["metadata"]["name"]}" at same binary version but '
                f"received differing strategies {first['spec'].get('strategy')}, {c['spec'].get('strategy')}"
            )
    return first["spec"].get("strategy") or ""


def best(candidates: Sequence[Obj]) -> Obj:
    """OldestEmulationVersion: the lowest emulated version, then the lowest binary, then who came first."""

    def rank(c: Obj) -> tuple[Any, Any, str]:
        spec = c["spec"]
        lowest = version_order(spec.get("emulationVersion") or ""), version_order(spec.get("binaryVersion") or "")
        return *lowest, c["metadata"].get("creationTimestamp") or ""

    return min(candidates, key=rank)


def _wanted(lease: Obj | None, chosen: str, holder: str | None, now: datetime) -> Obj:
    """The Lease's spec after the vote. With a strategy that is somebody else's, only the strategy is written."""
    if lease is None:
        spec: Obj = {"strategy": chosen, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": rfc3339_micro(now)}
        return spec | ({"holderIdentity": holder} if holder else {})
    spec = {**lease["spec"], "strategy": chosen}
    current = spec.get("holderIdentity")
    if holder and (not current or (_late(lease, now) and current != holder)):
        spec.pop("preferredHolder", None)
        spec.pop("acquireTime", None)
        spec |= {"holderIdentity": holder, "renewTime": rfc3339_micro(now), "leaseDurationSeconds": LEASE_DURATION_S}
    elif holder and current != holder:
        spec["preferredHolder"] = holder
    return spec


def _time(obj: Obj, key: str) -> datetime | None:
    text = (obj.get("spec") or {}).get(key)
    return parse_rfc3339(text) if text else None
