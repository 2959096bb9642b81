import asyncio

from berg.kubelet.killing import Killer, grace_period
from berg.machinery.clock import FakeClock

from .fakes import Events, FakeCRI, pod
from .test_status import running, runtime


def test_which_grace_period_counts():
    one = pod(terminationGracePeriodSeconds=30)
    c = {"name": "c", "livenessProbe": {"terminationGracePeriodSeconds": 5}}
    assert grace_period(one, c, "") == 30
    assert grace_period(one, c, "livenessProbe") == 5
    one["metadata"]["deletionGracePeriodSeconds"] = 7
    assert grace_period(one, c, "livenessProbe") == 7
    assert grace_period(pod(), {"name": "c"}, "") == 2


class Stops(FakeCRI):
    """Containers end when `release` says so."""

    def __init__(self, clock):
        super().__init__(clock)
        self.stopped = []
        self.hold: dict[str, asyncio.Event] = {}

    async def stop_container(self, request):
        self.stopped.append((request.container_id, request.timeout))
        if request.container_id in self.hold:
            await self.hold[request.container_id].wait()

    async def stop_pod_sandbox(self, request):
        self.stopped.append((request.pod_sandbox_id, None))


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


async def test_pre_stop_takes_from_the_grace_period():
    clock = FakeClock()
    cri, events = Stops(clock), Events()
    one = pod(terminationGracePeriodSeconds=30)
    one["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 10}}}
    task = asyncio.ensure_future(Killer(cri, clock, events).kill_pod(one, runtime(running("c")), None))
    await settle()
    assert cri.stopped == []
    await clock.advance(10)
    await task
    assert cri.stopped == [("id-c", 20), ("s", None)]
    assert events == [("Normal", "Killing", "Stopping container c")]


async def test_a_pre_stop_hook_that_hangs_is_cut_off():
    clock = FakeClock()
    cri = Stops(clock)
    one = pod(terminationGracePeriodSeconds=5)
    one["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 100}}}
    task = asyncio.ensure_future(Killer(cri, clock, Events()).kill_pod(one, runtime(running("c")), None))
    await settle()
    await clock.advance(5)
    await task
    assert cri.stopped[0] == ("id-c", 2)


async def test_sidecars_end_last_in_reverse_order():
    clock = FakeClock()
    cri = Stops(clock)
    side = {"image": "i", "restartPolicy": "Always"}
    one = pod(terminationGracePeriodSeconds=30, initContainers=[{"name": "a", **side}, {"name": "b", **side}])
    cri.hold = {"id-c": asyncio.Event(), "id-b": asyncio.Event()}
    status = runtime(running("a"), running("b"), running("c"))
    task = asyncio.ensure_future(Killer(cri, clock, Events()).kill_pod(one, status, None))
    await settle()
    assert [s[0] for s in cri.stopped] == ["id-c"]
    cri.hold["id-c"].set()
    await settle()
    assert [s[0] for s in cri.stopped] == ["id-c", "id-b"]
    cri.hold["id-b"].set()
    await task
    assert [s[0] for s in cri.stopped] == ["id-c", "id-b", "id-a", "s"]


async def test_an_unknown_pod_is_killed_by_what_its_containers_remember():
    clock = FakeClock()
    cri, events = Stops(clock), Events()
    container = running("c")
    container.annotations = {"io.kubernetes.pod.terminationGracePeriod": "40"}
    await Killer(cri, clock, events).kill_pod(None, runtime(container), None)
    assert cri.stopped[0] == ("id-c", 40)
