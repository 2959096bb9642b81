"""The arithmetic of a rollout: how large each ReplicaSet of a Deployment should be next. No I/O.

Two promises bind a rolling update: never more than replicas + maxSurge pods, and never fewer than
replicas − maxUnavailable available ones.

Source: pkg/controller/deployment/{rolling,sync}.go, util/deployment_util.go.
"""

from __future__ import annotations

import math

from berg.controllers.objects import by_age, replicas, scaled
from berg.machinery import meta
from berg.machinery.status import Obj

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
    }
)
HISTORY_MAX_CHARS = 2000

Sizes = list[tuple[Obj, int]]


def strategy(d: Obj) -> str:
    return (d["spec"].get("strategy") or {}).get("type") or "RollingUpdate"


def limits(d: Obj) -> tuple[int, int]:
    """maxSurge and maxUnavailable as numbers of pods. Both zero would never move: one may be unavailable then."""
    if strategy(d) != "RollingUpdate":
        return 0, 0
    rolling = (d["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge"), replicas(d), round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable"), replicas(d), round_up=False)
    return surge, 1 if surge == unavailable == 0 else unavailable


def max_surge(d: Obj) -> int:
    return limits(d)[0]


def max_unavailable(d: Obj) -> int:
    return min(limits(d)[1], replicas(d))


def without_hash(template: Obj) -> Obj:
    """For comparison: what a ReplicaSet's template has beyond its Deployment's is the hash label."""
    md = dict(template.get("metadata") or {})
    labels = {k: v for k, v in (md.pop("labels", None) or {}).items() if k != "pod-template-hash"}
    md = {k: v for k, v in md.items() if v}
    return {**template, "metadata": {**md, "labels": labels}}


def revision(rs: Obj) -> int:
    text = meta.annotations(rs).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def annotated(rs: Obj, name: str) -> int | None:
    text = meta.annotations(rs).get(name, "")
    return int(text) if text.isdigit() else None


def size_annotations(d: Obj) -> dict[str, str]:
    return {DESIRED: str(replicas(d)), MAXIMUM: str(replicas(d) + max_surge(d))}


def annotations_for(d: Obj, rs: Obj, number: int) -> dict[str, str]:
    """The ReplicaSet's annotations with the Deployment's own copied over and revision `number` in them."""
    mine = meta.annotations(rs)
    new = {**mine, **{k: v for k, v in meta.annotations(d).items() if k not in NOT_COPIED}}
    old = mine.get(REVISION, "")
    if old and not old.isdigit():
        return new
    if int(old or 0) < number:
        new[REVISION] = str(number)
        if old:
            history = [*filter(None, mine.get(HISTORY, "").split(",")), old]
            while len(",".join(history)) > HISTORY_MAX_CHARS:
                history.pop(0)
            new[HISTORY] = ",".join(history)
    return new


def total(sets: list[Obj]) -> int:
    return sum(map(replicas, sets))


def available(sets: list[Obj]) -> int:
    return sum((rs.get("status") or {}).get("availableReplicas", 0) for rs in sets)


def initial_size(d: Obj, old: list[Obj], new: Obj) -> int:
    return _grown(d, [*old, new], new)


def new_size(d: Obj, every: list[Obj], new: Obj) -> int:
    """How large the new set should be now."""
    return replicas(d) if replicas(new) >= replicas(d) else _grown(d, every, new)


def _grown(d: Obj, every: list[Obj], new: Obj) -> int:
    if strategy(d) == "Recreate":
        return replicas(d)
    room = replicas(d) + max_surge(d) - total(every)
    if room <= 0:
        return replicas(new)
    return replicas(new) + min(room, replicas(d) - replicas(new))


def old_sizes(d: Obj, old: list[Obj], new: Obj) -> Sizes:
    """What the old sets should shrink to: the unhealthy pods first, they are no loss; then as many more as the
    promise of availability allows. Only sets that change are named."""
    if total(old) == 0:
        return []
    min_available = replicas(d) - max_unavailable(d)
    new_unavailable = replicas(new) - available([new])
    budget = total([*old, new]) - min_available - new_unavailable
    if budget <= 0:
        return []
    sizes = {rs["metadata"]["name"]: replicas(rs) for rs in old}
    ordered = sorted(old, key=by_age)
    for rs in ordered:
        name = rs["metadata"]["name"]
        unhealthy = min(budget, sizes[name] - available([rs]))
        if unhealthy > 0:
            sizes[name] -= unhealthy
            budget -= unhealthy
    spare = available([*old, new]) - min_available
    for rs in ordered:
        if spare <= 0:
            break
        name = rs["metadata"]["name"]
        take = min(sizes[name], spare)
        sizes[name] -= take
        spare -= take
    return [(rs, sizes[rs["metadata"]["name"]]) for rs in ordered if sizes[rs["metadata"]["name"]] != replicas(rs)]


def proportional(d: Obj, new: Obj | None, old: list[Obj]) -> Sizes:
    """All sets' sizes after `spec.replicas` changed: in the middle of a rollout each grows or shrinks in
    proportion, so that the change does not undo or complete the rollout."""
    every = [*old, new] if new is not None else list(old)
    active = [rs for rs in every if replicas(rs) > 0]
    if len(active) <= 1:
        target = active[0] if active else new if new is not None else max(old, key=by_age, default=None)
        return [(target, replicas(d))] if target is not None and replicas(target) != replicas(d) else []
    if new is not None and _saturated(d, new):
        return [(rs, 0) for rs in old if replicas(rs) > 0]
    if strategy(d) != "RollingUpdate":
        return []
    allowed = replicas(d) + max_surge(d) if replicas(d) > 0 else 0
    to_add = allowed - total(active)
    if to_add >= 0:  # larger first, then newer
        active.sort(key=by_age, reverse=True)
    else:
        active.sort(key=by_age)
    active.sort(key=replicas, reverse=True)
    sizes: list[int] = []
    added = 0
    for rs in active:
        share = _share(d, rs, to_add, added) if to_add else 0
        sizes.append(replicas(rs) + share)
        added += share
    sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(active, sizes, strict=True))


def _saturated(d: Obj, rs: Obj) -> bool:
    wanted = replicas(d)
    return replicas(rs) == wanted and annotated(rs, DESIRED) == wanted and available([rs]) == wanted


def _share(d: Obj, rs: Obj, to_add: int, added: int) -> int:
    left = to_add - added
    if left == 0:
        return 0
    if replicas(d) == 0:
        fraction = -replicas(rs)
    else:
        before = annotated(rs, MAXIMUM) or (d.get("status") or {}).get("replicas", 0)
        if not before:
            return 0
        size = replicas(rs) * (replicas(d) + max_surge(d)) / before
        fraction = math.floor(size + 0.5) - replicas(rs)
    return min(fraction, left) if to_add > 0 else max(fraction, left)
