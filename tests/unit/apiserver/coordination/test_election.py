"""One step of an election. Times are those of upstream: five seconds to answer, half an hour to be forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from berg.apiserver.coordination import election
from berg.apiserver.coordination.election import Undecided, step
from berg.machinery.clock import rfc3339_micro

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLDEST = "OldestEmulationVersion"


def ago(seconds: float) -> str:
    return rfc3339_micro(NOW - timedelta(seconds=seconds))


def candidate(
    name: str,
    binary: str = "1.20.0",
    emulated: str = "",
    *,
    renewed: float = 1,
    asked: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    spec = {"leaseName": "foo", "binaryVersion": binary, "emulationVersion": emulated or binary, "strategy": OLDEST}
    spec |= {"renewTime": ago(renewed), **more} | ({} if asked is None else {"pingTime": ago(asked)})
    return {"metadata": {"name": name, "creationTimestamp": ago(60)}, "spec": spec}


def lease(holder: str, renewed: float = 1, **more: Any) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 5, "renewTime": ago(renewed), "strategy": OLDEST}
    return {"metadata": {"name": "foo"}, "spec": spec | more}


def test_the_only_candidate_gets_a_new_lease() -> None:
    found = step([candidate("a")], None, NOW)
    assert found.ask == []
    assert found.lease == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 5,
        "renewTime": rfc3339_micro(NOW),
        "strategy": OLDEST,
    }


def test_the_oldest_emulated_version_leads_then_the_oldest_binary() -> None:
    candidates = [
        candidate("a", "1.20.0"),
        candidate("b", "1.20.0", "1.19.0"),
        candidate("c", "1.19.0", "1.19.0"),
        candidate("d", "1.19.0-rc.1", "1.20.0"),
    ]
    assert election.best(candidates)["metadata"]["name"] == "c"
    found = step(candidates, None, NOW)
    assert found.lease is not None and found.lease["holderIdentity"] == "c"


def test_who_has_not_been_heard_of_is_asked_first_and_waited_for() -> None:
    silent = candidate("a", renewed=600)
    assert [c["metadata"]["name"] for c in step([silent, candidate("b")], None, NOW).ask] == ["a"]
    silent["spec"]["pingTime"] = ago(3)
    waiting = step([silent, candidate("b")], None, NOW)
    assert (waiting.ask, waiting.lease) == ([], None)


def test_who_does_not_answer_is_left_out() -> None:
    found = step([candidate("a", "1.18.0", renewed=600, asked=6), candidate("b")], None, NOW)
    assert found.lease is not None and found.lease["holderIdentity"] == "b"
    with pytest.raises(Undecided, match="no available candidates"):
        step([candidate("a", renewed=600, asked=6)], None, NOW)


def test_a_better_one_is_preferred_and_the_leader_not_pushed() -> None:
    found = step([candidate("a"), candidate("b", "1.19.0")], lease("a"), NOW)
    assert found.lease == {**lease("a")["spec"], "preferredHolder": "b"}
    assert step([candidate("a"), candidate("b", "1.21.0")], lease("a"), NOW).lease is None


def test_a_lease_that_ran_out_goes_to_the_best() -> None:
    late = lease("a", renewed=6, preferredHolder="b", acquireTime=ago(100), leaseTransitions=3)
    found = step([candidate("b", "1.19.0"), candidate("a")], late, NOW)
    assert found.lease == {
        "holderIdentity": "b",
        "leaseDurationSeconds": 5,
        "renewTime": rfc3339_micro(NOW),
        "strategy": OLDEST,
        "leaseTransitions": 3,
    }


def test_one_who_leads_without_being_a_candidate_keeps_the_lease_until_it_runs_out() -> None:
    found = step([candidate("new")], {"spec": {"holderIdentity": "old", **_held()}}, NOW)
    assert found.lease == {"holderIdentity": "old", **_held(), "strategy": OLDEST, "preferredHolder": "new"}


def _held() -> dict[str, Any]:
    return {"leaseDurationSeconds": 5, "renewTime": ago(1)}


def test_a_strategy_of_somebody_else_makes_a_lease_without_holder() -> None:
    theirs = [candidate("a", strategy="x.org/y"), candidate("b", strategy="x.org/y")]
    found = step(theirs, None, NOW)
    assert found.lease is not None
    assert found.lease["strategy"] == "x.org/y" and "holderIdentity" not in found.lease
    assert step(theirs, {"spec": {"holderIdentity": "a", **_held(), "strategy": "x.org/y"}}, NOW).lease is None


def test_the_newest_binary_says_which_strategy() -> None:
    assert election.strategy([candidate("a", "1.19.0", strategy="x.org/y"), candidate("b")]) == OLDEST
    with pytest.raises(Undecided, match='candidates "a", "b" at same binary version'):
        election.strategy([candidate("a", strategy="x.org/y"), candidate("b")])


def test_all_are_asked_now_and_then() -> None:
    assert [c["metadata"]["name"] for c in step([candidate("a", renewed=901)], lease("a"), NOW).ask] == ["a"]
    assert not election.expired(candidate("a", renewed=1799), NOW)
    assert election.expired(candidate("a", renewed=1801), NOW)
