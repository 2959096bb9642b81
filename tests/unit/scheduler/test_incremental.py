"""What is kept up to date row by row must equal what is computed anew: on any history of the cluster."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from berg.scheduler.framework.classcache import ClassState
from berg.scheduler.framework.interface import Cycle
from berg.scheduler.state.columns import LabelColumn
from berg.scheduler.state.counters import DomainCount
from berg.scheduler.state.snapshot import PODS

from .objects import Core, node, pod

Obj = dict[str, Any]
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
ANTI = "requiredDuringSchedulingIgnoredDuringExecution"
SOFT = "preferredDuringSchedulingIgnoredDuringExecution"


def templates() -> list[Obj]:
    term = {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": ZONE}
    spread = {"maxSkew": 2, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    return [
        {"cpu": "500m", "memory": "1Gi"},
        {"cpu": "100m", "ports": [{"hostPort": 80}]},
        {"labels": {"app": "a"}, "nodeSelector": {"disk": "ssd"}},
        {"labels": {"app": "b"}, "affinity": {"podAntiAffinity": {ANTI: [term]}}},
        {"labels": {"app": "a"}, "affinity": {"podAffinity": {SOFT: [{"weight": 7, "podAffinityTerm": term}]}}},
        {
            "labels": {"app": "a"},
            "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": {"app": "a"}}}],
        },
        {"cpu": "1", "tolerations": [{"key": "k", "operator": "Exists"}]},
    ]


def some_node(rng: random.Random, i: int) -> Obj:
    labels = {"disk": rng.choice(["ssd", "hdd"])}
    if rng.random() < 0.9:
        labels[ZONE] = f"z{rng.randrange(3)}"
    taints = [{"key": "k", "value": "v", "effect": rng.choice(["NoSchedule", "PreferNoSchedule"])}]
    more = {"taints": taints} if rng.random() < 0.3 else {}
    return node(f"n{i}", cpu=str(rng.randrange(1, 5)), labels=labels, unschedulable=rng.random() < 0.1, **more)


def step(core: Core, rng: random.Random) -> None:
    names = list(core.snapshot.rows)
    match rng.randrange(10):
        case 0:
            core.snapshot.set_node(some_node(rng, rng.randrange(12)))
        case 1 if names:
            core.snapshot.delete_node(rng.choice(names))
        case 2 if core.snapshot.where:
            core.snapshot.remove_pod(rng.choice(list(core.snapshot.where)))
        case 3 if names:
            core.snapshot.nominate(core.parser.parse(pod("nom", cpu="1", priority=rng.randrange(3))), rng.choice(names))
        case _:
            on = rng.choice(names) if names and rng.random() < 0.95 else "unknown"
            core.place(pod(f"p{rng.random()}", **rng.choice(templates())), on)


def check_class(core: Core, template: Obj) -> None:
    cycle = Cycle(core.parser.parse(pod("probe", **template)), core.snapshot)
    kept = core.algorithm.classes.state(cycle)
    fresh = ClassState(core.profile, cycle.cls)
    fresh.bring_up_to_date(cycle)
    valid = core.snapshot.valid
    assert (kept.passes == fresh.passes).all()
    assert (kept.base[valid] == fresh.base[valid]).all()
    for a, b in zip(kept.raw, fresh.raw, strict=True):
        assert (a[valid] == b[valid]).all()


def check_sums(core: Core) -> None:
    snapshot = core.snapshot
    for row, pods in enumerate(snapshot.pods):
        assert snapshot.requested[PODS, row] == len(pods)
        assert snapshot.requested[0, row] == sum(p.cls.requests.get("cpu", 0) for p in pods.values())
    counts: list[DomainCount] = [*snapshot.counters._counters.values(), *snapshot.counters._carriers.values()]
    for count in counts:
        for column, version, sums in count._domains.values():
            if version == column.version:
                assert (sums == summed(count, column)).all()
    for counter in snapshot.counters._counters.values():
        expected = np.zeros(snapshot.capacity, dtype=np.int64)
        for row, pods in enumerate(snapshot.pods):
            for p in pods.values():
                if counter.matches(snapshot.counters.label_class(p.cls)):
                    expected[row] += 1
        assert (counter.by_row == expected).all()


def summed(count: DomainCount, column: LabelColumn) -> Any:
    sums = np.zeros(len(count._domains[column.key][2]), dtype=np.int64)
    np.add.at(sums, column.ids, count.by_row)
    return sums


@pytest.mark.parametrize("seed", range(12))
def test_any_history(seed: int) -> None:
    rng = random.Random(seed)
    core = Core(*(some_node(rng, i) for i in range(5)))
    for i in range(150):
        step(core, rng)
        if i % 7 == 0:
            template = rng.choice(templates())
            check_class(core, template)
            if core.snapshot.count:
                try:
                    core.decide(pod("d", **template))
                except Exception as e:
                    assert "nodes are available" in str(e)
            check_sums(core)
        if i == 100:
            core.snapshot.sweep(core.parser, [])


def test_a_trial_leaves_no_trace() -> None:
    core = Core(node("a"), node("b"))
    info = core.place(pod("x", cpu="1", labels={"app": "a"}), "a")
    before = core.snapshot.requested.copy()
    with core.snapshot.trial(remove=[(info, core.snapshot.rows["a"])], add=[(info, core.snapshot.rows["b"])]):
        assert (core.snapshot.requested != before).any()
    assert (core.snapshot.requested == before).all()
    check_sums(core)
