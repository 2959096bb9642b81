"""What is written to the API, when, and what is not written again."""

import asyncio

from berg.kubelet.status_manager import StatusManager
from berg.machinery.clock import FakeClock
from berg.machinery.status import ApiError

from .fakes import pod


class Api:
    """Keeps one pod; `drop` are fields of the status that it does not store."""

    def __init__(self):
        self.calls = []
        self.version = 1
        self.status = {"phase": "Pending"}
        self.drop = ()
        self.gate = None
        self.failures = []

    async def patch(self, r, namespace, name, patch, **kw):
        self.calls.append(("patch", patch["status"]))
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.version += 1
        self.status = {**self.status, **{k: v for k, v in patch["status"].items() if k not in self.drop}}
        return self.current()

    async def delete(self, r, namespace, name, **kw):
        self.calls.append(("delete", kw))

    def current(self):
        one = pod()
        one["metadata"]["resourceVersion"] = str(self.version)
        return {**one, "status": dict(self.status)}


def make():
    api, clock = Api(), FakeClock()
    return api, clock, StatusManager(api, clock)


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def status(phase, **more):
    ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
    return {"phase": phase, "conditions": [ready], **more}


async def test_only_changes_are_written():
    api, clock, manager = make()
    assert manager.set(pod(), status("Pending"))
    await settle()
    assert not manager.set(pod(), status("Pending"))
    await settle()
    assert len(api.calls) == 1
    await clock.advance(5)
    manager.set(pod(), status("Running"))
    await settle()
    changed = api.calls[1][1]
    assert changed["phase"] == "Running"
    assert changed["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:05Z"
    assert "startTime" not in changed
    assert manager.get("uid-p")["startTime"] == "2026-01-01T00:00:00Z"


async def test_what_comes_while_a_write_is_on_its_way_is_written_once():
    api, _, manager = make()
    api.gate = asyncio.Event()
    manager.set(pod(), status("Pending"))
    await settle()
    manager.set(pod(), status("Pending", podIP="1"))
    manager.set(pod(), status("Running", podIP="2"))
    api.gate.set()
    await settle()
    assert [c[1].get("podIP") for c in api.calls] == [None, "2"]


async def test_failures_are_tried_again():
    api, clock, manager = make()
    api.failures = [ApiError(500, "InternalError", "x")]
    manager.set(pod(), status("Running"))
    await settle()
    await clock.advance(1)
    assert len(api.calls) == 2


async def test_a_finished_pod_is_deleted_after_its_last_status():
    api, _, manager = make()
    one = pod()
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    manager.set(one, status("Failed"))
    manager.finish(one)
    await settle()
    assert [c[0] for c in api.calls] == ["patch", "delete"]
    assert api.calls[1][1] == {"grace_period_s": 0, "uid": "uid-p"}


async def test_a_pod_that_ended_by_itself_stays():
    api, _, manager = make()
    manager.set(pod(), status("Succeeded"))
    manager.finish(pod())
    await settle()
    assert [c[0] for c in api.calls] == ["patch"]


async def test_what_others_change_is_put_right_but_not_fought_over():
    api, _, manager = make()
    api.drop = ("podIP",)
    manager.set(pod(), status("Running", podIP="1"))
    await settle()
    manager.seen(api.current())  # our own write comes back, without what the API does not keep
    await settle()
    assert len(api.calls) == 1
    api.version += 1
    api.status = {**api.status, "phase": "Failed"}
    manager.seen(api.current())
    await settle()
    assert len(api.calls) == 2
    assert api.status["phase"] == "Running"
    api.version += 1
    manager.seen(api.current())
    await settle()
    assert len(api.calls) == 2


async def test_another_pod_of_that_name_is_left_alone():
    api, clock, manager = make()
    api.failures = [ApiError(409, "Conflict", "Precondition failed: UID in precondition")]
    manager.set(pod(), status("Running"))
    await settle()
    await clock.advance(100)
    assert len(api.calls) == 1
