"""Preemption: which node, which victims, and what is said when it does not help."""

from __future__ import annotations

from typing import Any

import pytest

from berg.scheduler.framework.diagnosis import Diagnosis, FitError
from berg.scheduler.framework.status import Code, Status
from berg.scheduler.preemption import UnderWay
from berg.scheduler.preemption import preempt as decide_preemption

from .objects import Core, node, pod

Obj = dict[str, Any]


def preempt(core: Core, obj: Obj) -> tuple[str | None, list[str], str]:
    """(nominated node, names of victims, the whole message)"""
    info = core.parser.parse(obj)
    with pytest.raises(FitError) as e:
        core.algorithm.schedule(info)
    diagnosis: Diagnosis = e.value.diagnosis
    cycle = e.value.cycle
    chosen, status = core.profile.post_filter[0].post_filter(cycle, diagnosis)
    if status.code != Code.SUCCESS:
        diagnosis.post_filter_message = status.message
        return chosen, [], diagnosis.message()
    return chosen, [v.name for v in cycle.data["preemption"].victims], diagnosis.message()


def filled(name: str, *priorities: int, cpu: str = "1", **more: Any) -> list[Obj]:
    return [pod(f"{name}-{i}", cpu=cpu, priority=p, **more) for i, p in enumerate(priorities)]


def test_nothing_of_lower_priority() -> None:
    core = Core(node("a", cpu="1"))
    core.place(pod("x", cpu="1"), "a")
    assert preempt(core, pod("p", cpu="1")) == (
        "",
        [],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
        "1 No preemption victims found for incoming pod.",
    )


def test_not_helpful_where_the_reason_cannot_be_removed() -> None:
    core = Core(node("a", cpu="1"), node("b", unschedulable=True))
    assert preempt(core, pod("p", cpu="2", priority=10))[2] == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are "
        "available: 2 Preemption is not helpful for scheduling."
    )


def test_never() -> None:
    core = Core(node("a", cpu="1"))
    core.place(pod("x", cpu="1"), "a")
    assert preempt(core, pod("p", cpu="1", priority=5, preemptionPolicy="Never"))[2].endswith(
        "preemption: not eligible due to preemptionPolicy=Never."
    )


def test_as_few_and_as_unimportant_as_possible() -> None:
    core = Core(node("a", cpu="3"), node("b", cpu="3"))
    for p in filled("a", 1, 2, 3):
        core.place(p, "a")
    for p in filled("b", 2, 2, 9):
        core.place(p, "b")
    assert preempt(core, pod("p", cpu="1", priority=5))[:2] == ("a", ["a-0"])
    assert preempt(core, pod("q", cpu="2", priority=5))[:2] == ("a", ["a-1", "a-0"])


def test_equal_nodes_are_told_apart_by_the_start_of_the_victims() -> None:
    core = Core(node("a", cpu="1"), node("b", cpu="1"))
    core.place(pod("old", cpu="1", status={"startTime": "2026-01-01T00:00:00Z"}), "a")
    core.place(pod("young", cpu="1", status={"startTime": "2026-01-02T00:00:00Z"}), "b")
    assert preempt(core, pod("p", cpu="1", priority=5))[:2] == ("b", ["young"])


def test_budgets_are_respected_where_possible() -> None:
    core = Core(node("a", cpu="1"), node("b", cpu="1"))
    core.place(pod("guarded", cpu="1", priority=0, labels={"app": "db"}), "a")
    core.place(pod("other", cpu="1", priority=3), "b")
    core.objects.set(
        "PodDisruptionBudget",
        {
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "db"}}},
            "status": {"disruptionsAllowed": 0},
        },
    )
    assert preempt(core, pod("p", cpu="1", priority=5))[:2] == ("b", ["other"])


def test_results_kept_for_a_class_follow_changes() -> None:
    core = Core(node("a", cpu="1"), node("b", cpu="1"))
    low = core.place(pod("x", cpu="1", priority=1), "a")
    core.place(pod("y", cpu="1", priority=2), "b")
    assert preempt(core, pod("p", cpu="1", priority=5))[0] == "a"
    core.snapshot.remove_pod(low.uid)
    core.place(pod("z", cpu="1", priority=4), "a")
    assert preempt(core, pod("p2", cpu="1", priority=5))[:2] == ("b", ["y"])


def test_anti_affinity_can_be_preempted() -> None:
    core = Core(node("a"))
    term = {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}
    anti = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    core.place(pod("x", labels={"app": "a"}), "a")
    core.place(pod("bystander"), "a")
    assert preempt(core, pod("p", labels={"app": "a"}, affinity=anti, priority=5))[:2] == ("a", ["x"])
    assert core.snapshot.where.keys() == {p.uid for p in core.snapshot.pods[core.snapshot.rows["a"]].values()}


def test_room_made_for_one_is_not_given_to_a_lesser_one() -> None:
    core = Core(node("a", cpu="1"))
    important = core.parser.parse(pod("p", cpu="1", priority=5))
    core.snapshot.nominate(important, "a")
    with pytest.raises(FitError, match="Insufficient cpu"):
        core.decide(pod("q", cpu="1", priority=4))
    assert core.decide(pod("r", cpu="1", priority=6)).node == "a"
    core.snapshot.denominate(important.uid, "a")
    assert core.decide(pod("s", cpu="1", priority=4)).node == "a"


def test_no_second_preemption_before_the_victims_of_the_first_are_gone() -> None:
    core = Core(node("a", cpu="1"), node("b", cpu="1"))
    first = core.place(pod("x", cpu="1"), "a")
    core.place(pod("y", cpu="1", priority=1), "b")
    info = core.parser.parse(pod("p", cpu="1", priority=5))

    def attempt(under_way: UnderWay | None) -> tuple[str | None, Status]:
        with pytest.raises(FitError) as e:
            core.algorithm.schedule(info)
        return decide_preemption(e.value.cycle, e.value.diagnosis, core.objects, {}, under_way)

    assert attempt(None)[0] == "a"
    chosen, status = attempt(UnderWay({first.uid}))
    assert chosen is None and status.message == (
        "preemption: not eligible due to a terminating pod on the nominated node."
    )
    core.snapshot.remove_pod(first.uid)
    core.place(pod("z", cpu="1", priority=9), "a")  # someone else was quicker
    assert attempt(UnderWay({first.uid}))[0] == "b"
