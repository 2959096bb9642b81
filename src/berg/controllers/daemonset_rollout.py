"""Which old pods of a DaemonSet an update may replace now. No I/O.

Without surge an old pod goes first and a new one follows, at most maxUnavailable nodes at a time; with surge the
new one comes first, on at most maxSurge nodes at a time.

Source: pkg/controller/daemon/update.go.
"""

from __future__ import annotations

from datetime import datetime

from berg.controllers.objects import by_age, scaled
from berg.controllers.pods import is_available, is_ready
from berg.machinery import meta
from berg.machinery.status import Obj

HASH_LABEL = "controller-revision-hash"


def _rolling(ds: Obj) -> Obj:
    return (ds["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}


def max_surge(ds: Obj, desired: int) -> int:
    return scaled(_rolling(ds).get("maxSurge", 0), desired, round_up=True)


def _max_unavailable(ds: Obj, desired: int) -> int:
    unavailable = scaled(_rolling(ds).get("maxUnavailable", 1), desired, round_up=True)
    return 1 if desired and not unavailable and not max_surge(ds, desired) else unavailable


def surplus(ds: Obj, running: list[Obj], hash: str, now: datetime) -> list[Obj]:
    """Of one node with surge: all but the oldest new and the oldest old pod, and the old one as soon as the new
    one can do its work or the old one no longer does."""
    if len(running) <= 1:
        return []
    ordered = sorted(running, key=lambda p: (not p["spec"].get("nodeName"), by_age(p)))
    new = [p for p in ordered if meta.labels(p).get(HASH_LABEL) == hash]
    old = [p for p in ordered if p not in new]
    found = [*new[1:], *old[1:]]
    if new and old:
        min_ready = ds["spec"].get("minReadySeconds") or 0
        if not is_ready(old[0]) or is_available(new[0], min_ready, now):
            found.append(old[0])
    return found


def step(
    ds: Obj, pods: dict[str, list[Obj]], fits: dict[str, bool], hash: str, now: datetime
) -> tuple[list[str], list[Obj]]:
    """Nodes to start a new pod on, and pods to delete."""
    desired = sum(fits.values())
    min_ready = ds["spec"].get("minReadySeconds") or 0
    surge = max_surge(ds, desired)

    def works(pod: Obj | None) -> bool:
        return pod is not None and is_available(pod, min_ready, now)

    unavailable = surging = 0
    must_go: list[Obj] = []
    may_go: list[Obj] = []
    must_start: list[str] = []
    may_start: list[str] = []
    for name, here in sorted(pods.items()):
        alive = [p for p in here if not meta.is_deleting(p)]
        new = [p for p in alive if meta.labels(p).get(HASH_LABEL) == hash]
        old = [p for p in alive if meta.labels(p).get(HASH_LABEL) != hash]
        if len(new) > 1 or len(old) > 1 or (not surge and bool(new) == bool(old)):
            unavailable += 1  # too many or none: the main loop deals with this node
            surging += 1
        elif not old:
            unavailable += not works(new[0] if new else None)
        elif not surge:
            if works(old[0]):
                may_go.append(old[0])
            else:
                must_go.append(old[0])
                unavailable += 1
        elif new:
            if works(new[0]):
                must_go.append(old[0])
            else:
                surging += 1
        elif not fits.get(name, False):
            must_go.append(old[0])
        elif works(old[0]):
            may_start.append(name)
        else:
            must_start.append(name)
    if surge:
        return [*must_start, *may_start[: max(0, surge - surging)]], must_go
    return [], [*must_go, *may_go[: max(0, _max_unavailable(ds, desired) - unavailable)]]
