from datetime import UTC, datetime, timedelta

import pytest

from berg.apiserver.kinds import cells as cell_words
from berg.machinery.clock import FakeClock

from .writing import cells, made

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock():
    cell_words.use_clock(FakeClock(NOW))


def waiting(reason, **more):
    return {"name": "c", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason}}, **more}


RUNNING = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}


def done(code, reason="", **more):
    terminated = {"exitCode": code, "reason": reason, **more}
    return {"name": "c", "ready": False, "restartCount": 0, "state": {"terminated": terminated}}


@pytest.mark.parametrize(
    ("status", "text", "ready"),
    [
        ({"phase": "Pending"}, "Pending", "0/1"),
        ({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}, "ContainerCreating", "0/1"),
        ({"phase": "Running", "containerStatuses": [RUNNING]}, "Running", "1/1"),
        ({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}, "CrashLoopBackOff", "0/1"),
        ({"phase": "Succeeded", "containerStatuses": [done(0, "Completed")]}, "Completed", "0/1"),
        ({"phase": "Failed", "containerStatuses": [done(1, "Error")]}, "Error", "0/1"),
        ({"phase": "Failed", "containerStatuses": [done(2)]}, "ExitCode:2", "0/1"),
        ({"phase": "Failed", "containerStatuses": [done(137, signal=9)]}, "Signal:9", "0/1"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted", "0/1"),
        (
            {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]},
            "Init:0/1",
            "0/1",
        ),
        (
            {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1}}}]},
            "Init:ExitCode:1",
            "0/1",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            },
            "Init:ImagePullBackOff",
            "0/1",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            "SchedulingGated",
            "0/1",
        ),
    ],
)
def test_status(status, text, ready):
    pod = made("pods", "containers: [{name: c, image: i}]\ninitContainers: [{name: i, image: i}]", status=status)
    row = cells("pods", pod)
    assert (row["Status"], row["Ready"]) == (text, ready)


def test_a_pod_that_goes_is_terminating():
    pod = made("pods", "containers: [{name: c, image: i}]", status={"phase": "Running"})
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T11:00:00Z"
    assert cells("pods", pod)["Status"] == "Terminating"


def test_restarts_tell_when():
    last = {"terminated": {"exitCode": 1, "finishedAt": "2026-11-21T11:55:00Z"}}
    status = {"phase": "Running", "containerStatuses": [{**RUNNING, "restartCount": 3, "lastState": last}]}
    pod = made("pods", "containers: [{name: c, image: i}]", status=status)
    assert cells("pods", pod)["Restarts"] == "3 (5m ago)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 1800, "7h30m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 24 * 3600, "8d"),
        (700 * 24 * 3600, "700d"),
        (800 * 24 * 3600, "2y70d"),
        (8 * 365 * 24 * 3600, "8y"),
        (-5, "<invalid>"),
    ],
)
def test_ages(seconds, text):
    assert cell_words.human_duration(timedelta(seconds=seconds)) == text
