from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from controllers_world import World, template

from berg.controllers import cron


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("*/5 * * * *", "2026-01-01T00:00:30", "2026-01-01T00:05:00"),
        ("0 12 * * *", "2026-01-01T12:00:00", "2026-01-02T12:00:00"),
        ("30 4 1,15 * 5", "2026-01-01T05:00:00", "2026-01-02T04:30:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 9 * * mon-fri", "2026-01-02T09:00:00", "2026-01-05T09:00:00"),
        ("@hourly", "2026-01-01T00:59:59", "2026-01-01T01:00:00"),
        ("10-20/5 * * jan *", "2026-01-01T00:15:00", "2026-01-01T00:20:00"),
        ("0 0 ? * 0", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
    ],
)
def test_next(text: str, after: str, expected: str):
    at = cron.parse(text).next(datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert at == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_no_such_date():
    assert cron.parse("0 0 31 2 *").next(datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_time_zones_and_the_change_of_clocks():
    rome = ZoneInfo("Europe/Rome")
    daily = cron.parse("30 2 * * *", rome)
    # 2026-03-29: 2:00 → 3:00, there is no 2:30
    assert daily.next(datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
    midnight = cron.parse("0 0 * * *", rome)
    assert midnight.next(datetime(2026, 3, 28, 23, 30, tzinfo=UTC)) == datetime(2026, 3, 29, 22, tzinfo=UTC)


def test_every():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert cron.parse("@every 1h30m").next(at) == at + timedelta(minutes=90)


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "* 5-3 * * *", "a * * * *", "*/0 * * * *", "@noon"])
def test_nonsense_is_refused(text: str):
    with pytest.raises(ValueError, match=r"."):
        cron.parse(text)


def cronjob(schedule: str = "*/1 * * * *", **spec: Any) -> dict[str, Any]:
    job = {"metadata": {"labels": {"a": "b"}}, "spec": {"template": template({}), "backoffLimit": 0}}
    return {
        "metadata": {"name": "cj"},
        "spec": {
            "schedule": schedule,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": job,
            **spec,
        },
    }


def jobs(world: World) -> list[str]:
    return sorted(j["metadata"]["name"] for j in world.all("jobs.batch"))


def finish(world: World, name: str, type: str = "Complete") -> None:
    now = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": type, "status": "True", "lastTransitionTime": now}
    world.change("jobs.batch", name, {"status": {"conditions": [condition], "completionTime": now, "startTime": now}})


async def test_a_job_at_each_time(world: World):
    world.create("cronjobs.batch", cronjob())
    await world.run("cronjob-controller")
    assert jobs(world) == []
    await world.clock.advance(60.2)
    await world.settle()
    minute = int(datetime(2026, 1, 1, 0, 1, tzinfo=UTC).timestamp()) // 60
    assert jobs(world) == [f"cj-{minute}"]
    job = world.get("jobs.batch", f"cj-{minute}")
    assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"] == "2026-01-01T00:01:00Z"
    assert job["metadata"]["labels"] == {"a": "b"}
    assert job["metadata"]["ownerReferences"][0]["controller"] is True
    status = world.get("cronjobs.batch", "cj")["status"]
    assert [a["name"] for a in status["active"]] == [f"cj-{minute}"]
    assert status["lastScheduleTime"] == "2026-01-01T00:01:00Z"
    finish(world, f"cj-{minute}")
    await world.settle()
    status = world.get("cronjobs.batch", "cj")["status"]
    assert "active" not in status
    assert status["lastSuccessfulTime"]
    assert world.events("SawCompletedJob") == [f"Saw completed job: cj-{minute}, condition: Complete"]
    await world.clock.advance(60)
    await world.settle()
    assert len(jobs(world)) == 2


async def test_forbid_and_replace(world: World):
    world.create("cronjobs.batch", cronjob(concurrencyPolicy="Forbid"))
    await world.run("cronjob-controller")
    await world.clock.advance(130)
    await world.settle()
    first = jobs(world)
    assert len(first) == 1
    assert world.events("JobAlreadyActive")
    world.change("cronjobs.batch", "cj", {"spec": {"concurrencyPolicy": "Replace"}})
    await world.settle()
    assert len(jobs(world)) == 1
    assert jobs(world) != first


async def test_history_limits(world: World):
    world.create("cronjobs.batch", cronjob(successfulJobsHistoryLimit=1))
    await world.run("cronjob-controller")
    for _ in range(3):
        await world.clock.advance(60.1)
        await world.settle()
        finish(world, jobs(world)[-1])
        await world.settle()
    assert len(jobs(world)) == 1


async def test_a_deadline_missed_is_said(world: World):
    world.create("cronjobs.batch", cronjob("0 * * * *", startingDeadlineSeconds=10))
    await world.clock.advance(3700)
    await world.run("cronjob-controller")
    assert jobs(world) == []


async def test_suspended_does_nothing(world: World):
    world.create("cronjobs.batch", cronjob(suspend=True))
    await world.run("cronjob-controller")
    await world.clock.advance(200)
    await world.settle()
    assert jobs(world) == []


async def test_of_many_missed_times_the_latest_is_made_up_for(world: World):
    world.create("cronjobs.batch", cronjob())
    await world.clock.advance(7200)
    await world.run("cronjob-controller")
    assert len(jobs(world)) == 1
    assert world.events("TooManyMissedTimes")
