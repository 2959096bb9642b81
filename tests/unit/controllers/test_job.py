from typing import Any

import pytest
from controllers_world import World, template

from berg.controllers.job_indexes import Indexes
from berg.controllers.job_policy import FINALIZER, INDEX


def job(**spec: Any) -> dict[str, Any]:
    t = template({"job": "x"})
    t["spec"]["restartPolicy"] = spec.pop("restartPolicy", "Never")
    return {
        "metadata": {"name": "j"},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": {"job": "x"}},
            "template": t,
            **spec,
        },
    }


def live(world: World) -> list[dict[str, Any]]:
    return world.pods(
        lambda p: p["status"]["phase"] in ("Pending", "Running") and "deletionTimestamp" not in p["metadata"]
    )


async def end(world: World, phase: str, code: int = 0) -> None:
    """All running pods end."""
    for p in live(world):
        name = p["metadata"]["name"]
        world.change("pods", name, {"spec": {"nodeName": "n"}})
        ended = {"exitCode": code, "finishedAt": world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")}
        world.set_pod(name, phase, containerStatuses=[{"name": "c", "state": {"terminated": ended}}])
    await world.settle()


def outcome(world: World) -> tuple[str, str] | None:
    for c in world.get("jobs.batch", "j")["status"].get("conditions", []):
        if c["type"] in ("Complete", "Failed"):
            return c["type"], c["reason"]
    return None


async def test_completions_in_parallel(world: World):
    world.create("jobs.batch", job(parallelism=2, completions=3))
    await world.run("job-controller")
    assert len(live(world)) == 2
    assert live(world)[0]["metadata"]["finalizers"] == [FINALIZER]
    await end(world, "Succeeded")
    assert len(live(world)) == 1
    await end(world, "Succeeded")
    status = world.get("jobs.batch", "j")["status"]
    assert outcome(world) == ("Complete", "CompletionsReached")
    assert [c["type"] for c in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert (status["succeeded"], status["ready"], status["terminating"]) == (3, 0, 0)
    assert status["uncountedTerminatedPods"] == {}
    assert status["completionTime"]
    assert all(not p["metadata"]["finalizers"] for p in world.pods())
    assert world.events("Completed") == ["Job completed"]
    assert len(world.events("SuccessfulCreate")) == 3


async def test_failures_wait_and_then_end_it(world: World):
    world.create("jobs.batch", job(backoffLimit=1))
    await world.run("job-controller")
    await end(world, "Failed", 1)
    assert live(world) == []
    await world.clock.advance(9)
    await world.settle()
    assert live(world) == []
    await world.clock.advance(3)
    await world.settle()
    assert len(live(world)) == 1
    await end(world, "Failed", 1)
    assert outcome(world) == ("Failed", "BackoffLimitExceeded")
    assert world.get("jobs.batch", "j")["status"]["failed"] == 2
    assert world.events("BackoffLimitExceeded") == ["Job has reached the specified backoff limit"]


async def test_indexes(world: World):
    world.create("jobs.batch", job(completionMode="Indexed", completions=4, parallelism=4))
    await world.run("job-controller")
    pods = {p["metadata"]["annotations"][INDEX]: p for p in live(world)}
    assert sorted(pods) == ["0", "1", "2", "3"]
    pod = pods["2"]
    assert pod["spec"]["hostname"] == "j-2"
    assert pod["metadata"]["labels"][INDEX] == "2"
    assert pod["metadata"]["name"].startswith("j-2-")
    assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    for i in ("0", "2", "3"):
        world.set_pod(pods[i]["metadata"]["name"], "Succeeded")
    await world.settle()
    assert world.get("jobs.batch", "j")["status"]["completedIndexes"] == "0,2,3"
    await end(world, "Succeeded")
    assert world.get("jobs.batch", "j")["status"]["completedIndexes"] == "0-3"
    assert outcome(world) == ("Complete", "CompletionsReached")


async def test_a_failed_index_does_not_end_the_others(world: World):
    world.create(
        "jobs.batch",
        job(completionMode="Indexed", completions=2, parallelism=2, backoffLimitPerIndex=0, backoffLimit=2**31 - 1),
    )
    await world.run("job-controller")
    bad = next(p for p in live(world) if p["metadata"]["annotations"][INDEX] == "1")
    assert bad["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] == "0"
    world.set_pod(bad["metadata"]["name"], "Failed")
    await world.settle()
    assert world.get("jobs.batch", "j")["status"]["failedIndexes"] == "1"
    assert outcome(world) is None
    await end(world, "Succeeded")
    assert outcome(world) == ("Failed", "FailedIndexes")
    assert world.get("jobs.batch", "j")["status"]["completedIndexes"] == "0"


async def test_an_index_is_tried_again_with_its_count(world: World):
    world.create(
        "jobs.batch", job(completionMode="Indexed", completions=1, backoffLimitPerIndex=1, backoffLimit=2**31 - 1)
    )
    await world.run("job-controller")
    await end(world, "Failed", 1)
    await world.clock.advance(12)
    await world.settle()
    (again,) = live(world)
    assert again["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] == "1"
    await end(world, "Failed", 1)
    assert outcome(world) == ("Failed", "FailedIndexes")


POLICY = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
}


async def test_the_failure_policy_can_end_it(world: World):
    world.create("jobs.batch", job(podFailurePolicy=POLICY))
    await world.run("job-controller")
    (pod,) = live(world)
    await end(world, "Failed", 42)
    assert outcome(world) == ("Failed", "PodFailurePolicy")
    assert world.manager is not None
    metrics, of = world.manager.metrics.text(), "job_controller"
    assert f'{of}_pod_failures_handled_by_failure_policy_total{{action="FailJob"}} 1' in metrics
    for event in ("add", "delete"):
        assert f'{of}_terminated_pods_tracking_finalizer_total{{event="{event}"}} 1' in metrics
    (c,) = [c for c in world.get("jobs.batch", "j")["status"]["conditions"] if c["type"] == "FailureTarget"]
    name = pod["metadata"]["name"]
    assert (
        c["message"] == f"Container c for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
    )


async def test_the_failure_policy_can_look_away(world: World):
    world.create("jobs.batch", job(podFailurePolicy=POLICY, backoffLimit=0))
    await world.run("job-controller")
    (pod,) = live(world)
    conditions = [{"type": "DisruptionTarget", "status": "True"}]
    world.change("pods", pod["metadata"]["name"], {"status": {"phase": "Failed", "conditions": conditions}})
    await world.settle()
    await world.clock.advance(15)
    await world.settle()
    assert outcome(world) is None
    assert len(live(world)) == 1
    assert "failed" not in world.get("jobs.batch", "j")["status"]


async def test_the_success_policy_ends_it_early(world: World):
    world.create(
        "jobs.batch",
        job(
            completionMode="Indexed", completions=3, parallelism=3, successPolicy={"rules": [{"succeededIndexes": "1"}]}
        ),
    )
    await world.run("job-controller")
    leader = next(p for p in live(world) if p["metadata"]["annotations"][INDEX] == "1")
    world.set_pod(leader["metadata"]["name"], "Succeeded")
    await world.settle()
    await world.run_pods()
    assert outcome(world) == ("Complete", "SuccessPolicy")
    assert live(world) == []


async def test_suspended_and_resumed(world: World):
    world.create("jobs.batch", job(suspend=True))
    await world.run("job-controller")
    assert live(world) == []
    (c,) = world.get("jobs.batch", "j")["status"]["conditions"]
    assert (c["type"], c["status"], c["reason"], c["message"]) == ("Suspended", "True", "JobSuspended", "Job suspended")
    assert "startTime" not in world.get("jobs.batch", "j")["status"]
    world.change("jobs.batch", "j", {"spec": {"suspend": False}})
    await world.settle()
    assert len(live(world)) == 1
    assert world.get("jobs.batch", "j")["status"]["startTime"]
    world.change("jobs.batch", "j", {"spec": {"suspend": True}})
    await world.settle()
    assert live(world) == []
    assert outcome(world) is None


async def test_too_long(world: World):
    world.create("jobs.batch", job(activeDeadlineSeconds=30))
    await world.run("job-controller")
    await world.clock.advance(31)
    await world.settle()
    await world.run_pods()
    assert outcome(world) == ("Failed", "DeadlineExceeded")


async def test_ttl(world: World):
    world.create("jobs.batch", job(ttlSecondsAfterFinished=60))
    await world.run("job-controller", "ttl-after-finished-controller")
    await end(world, "Succeeded")
    assert outcome(world) is not None
    await world.clock.advance(55)
    assert "deletionTimestamp" not in world.get("jobs.batch", "j")["metadata"]
    await world.clock.advance(10)
    await world.settle()
    assert world.get("jobs.batch", "j")["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_the_finalizer_goes_with_a_deleted_job(world: World):
    world.create("jobs.batch", job())
    await world.run("job-controller")
    world.delete("jobs.batch", "j")
    await world.settle()
    assert all(not p["metadata"]["finalizers"] for p in world.pods())


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([1, 0], "0,1"),
        ([0, 1, 2, 5], "0-2,5"),
        ([7, 9, 8, 1], "1,7-9"),
        ([3, 4, 6, 7], "3,4,6,7"),
    ],
)
def test_index_text(numbers: list[int], text: str):
    indexes = Indexes.of(numbers)
    assert str(indexes) == text
    assert len(indexes) == len(numbers)
    assert str(Indexes.parse(text, 100)) == text
    assert Indexes.parse(text, 100).missing(3, 10) == [n for n in range(10) if n not in numbers][:3]
