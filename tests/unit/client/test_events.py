from fake_api import FakeAPI

from berg.client.events import EventRecorder
from berg.client.rest import Client
from berg.machinery.clock import FakeClock

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"},
}


async def test_an_event_says_who_what_and_when():
    api = FakeAPI()
    recorder = EventRecorder(Client(api), "replicaset-controller", clock=FakeClock())
    recorder.event(POD, "Normal", "SuccessfulCreate", "Created pod: web-1")
    await recorder.flush()
    await recorder.stop()
    (event,) = api.all("events")
    assert event["metadata"]["name"].startswith("web.")
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "web",
        "namespace": "default",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert (event["reason"], event["message"], event["type"], event["count"]) == (
        "SuccessfulCreate",
        "Created pod: web-1",
        "Normal",
        1,
    )
    assert event["source"] == {"component": "replicaset-controller"}
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"


async def test_the_same_again_is_counted():
    api, clock = FakeAPI(), FakeClock()
    recorder = EventRecorder(Client(api), "kubelet", clock=clock, host="n1")
    for _ in range(3):
        recorder.event(POD, "Warning", "BackOff", "Back-off restarting")
        await recorder.flush()
        await clock.advance(10)
    await recorder.stop()
    (event,) = api.all("events")
    assert event["count"] == 3
    assert event["lastTimestamp"] == "2026-01-01T00:00:20Z"
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"


async def test_ten_different_messages_are_combined():
    api = FakeAPI()
    recorder = EventRecorder(Client(api), "x", clock=FakeClock())
    for i in range(12):
        recorder.event(POD, "Normal", "R", f"message {i}")
    await recorder.flush()
    await recorder.stop()
    combined = [e for e in api.all("events") if e["message"].startswith("(combined from similar events): ")]
    assert len(api.all("events")) == 10
    assert [(e["count"], e["message"][-10:]) for e in combined] == [(3, "message 11")]


async def test_one_object_cannot_flood():
    api = FakeAPI()
    recorder = EventRecorder(Client(api), "x", clock=FakeClock())
    for i in range(40):
        recorder.event(POD, "Normal", f"R{i}", "m")
    await recorder.flush()
    await recorder.stop()
    assert len(api.all("events")) == 25


async def test_series_of_the_newer_kind():
    api = FakeAPI()
    recorder = EventRecorder(Client(api), "default-scheduler", clock=FakeClock(), core=False)
    for _ in range(2):
        recorder.event(POD, "Warning", "FailedScheduling", "0/1 nodes", action="Scheduling")
    await recorder.flush()
    await recorder.stop()
    (event,) = api.all("events", "events.k8s.io")
    assert event["note"] == "0/1 nodes"
    assert event["regarding"]["name"] == "web"
    assert event["series"]["count"] == 2
