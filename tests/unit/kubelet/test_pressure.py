"""Eviction, image collection, log rotation, resize: each with figures given by hand."""

import gzip

import pytest

from berg.kubelet.allocation import Allocation, from_status, needs_restart
from berg.kubelet.allocation import amounts as amounts_of
from berg.kubelet.config import KubeletConfig
from berg.kubelet.eviction import EvictionManager, Signal, Usage, rank, thresholds
from berg.kubelet.image_gc import ImageGC
from berg.kubelet.log_rotation import LogRotation
from berg.kubelet.machine import Disk
from berg.machinery.clock import FakeClock
from berg.runtime.api import cri_pb2 as pb

from .fakes import Events, FakeCRI, pod


def asking(name, memory="0", priority=0):
    c = {"name": "c", "image": "i", "resources": {"requests": {"memory": memory}}}
    return pod(name, containers=[c], priority=priority)


class Evictions:
    def __init__(self, **config):
        self.clock = FakeClock()
        self.available = 1 << 30
        self.reclaimed = []
        self.frees = False
        self.evicted = []
        self.changes = 0
        self.pods = [asking("a", "100Mi"), asking("b")]
        self.usage = {"uid-a": Usage(memory=50 << 20), "uid-b": Usage(memory=10 << 20)}
        self.signal = "memory.available"
        self.manager = EvictionManager(
            KubeletConfig(**config),
            self.clock,
            self.signals,
            lambda: self.pods,
            self.usages,
            self.reclaim,
            self.evict,
            self.over_limit,
            self.change,
        )

    async def signals(self):
        return {self.signal: Signal(self.available, 1 << 30)}

    async def usages(self):
        return self.usage

    async def reclaim(self, signal):
        self.reclaimed.append(signal)
        if self.frees:
            self.available = 1 << 30

    def evict(self, one, grace, message, condition):
        self.evicted.append((one["metadata"]["name"], grace, message))
        return True

    async def over_limit(self):
        return []

    def change(self):
        self.changes += 1


async def test_a_hard_threshold_evicts_who_uses_more_than_asked():
    rig = Evictions()
    assert await rig.manager.synchronize() is None
    rig.available = 50 << 20
    await rig.manager.synchronize()
    assert rig.manager.under_pressure("MemoryPressure")
    assert rig.evicted == [
        (
            "b",
            0,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. "
            "Container c was using 10240Ki, request is 0, has larger consumption of memory. ",
        )
    ]
    rig.available = 1 << 30
    await rig.clock.advance(299)
    await rig.manager.synchronize()
    assert rig.manager.under_pressure("MemoryPressure")  # it must have been quiet for a while
    await rig.clock.advance(2)
    await rig.manager.synchronize()
    assert not rig.manager.under_pressure("MemoryPressure")
    assert rig.changes == 2


async def test_a_soft_threshold_waits():
    rig = Evictions(
        eviction_hard={},
        eviction_soft={"memory.available": "10%"},
        eviction_soft_grace_period={"memory.available": "1m"},
        eviction_max_pod_grace_period=7,
    )
    rig.available = 50 << 20
    await rig.manager.synchronize()
    assert rig.evicted == []
    await rig.clock.advance(60)
    await rig.manager.synchronize()
    assert rig.evicted[0][:2] == ("b", 7)


async def test_disk_is_reclaimed_before_pods_are_touched():
    rig = Evictions()
    rig.signal, rig.available = "nodefs.available", 1 << 20
    rig.frees = True
    await rig.manager.synchronize()
    assert rig.evicted == []
    assert rig.reclaimed == ["nodefs.available"]


def test_who_goes_first():
    low, high, modest = asking("low"), asking("high", priority=5), asking("modest", "1Gi")
    critical = asking("critical", priority=2_000_000_000)
    usage = {p["metadata"]["uid"]: Usage(memory=1 << 20) for p in (low, high, modest, critical)}
    order = rank([critical, modest, high, low], usage, "memory")
    assert [p["metadata"]["name"] for p in order] == ["low", "high", "modest"]


async def test_what_is_refused_under_pressure():
    rig = Evictions()
    rig.available = 0
    await rig.manager.synchronize()
    assert rig.manager.refuses(pod()) == "The node had condition: [MemoryPressure]. "
    assert rig.manager.refuses(asking("a", "1Mi")) is None


def test_soft_thresholds_need_a_period():
    with pytest.raises(ValueError, match="grace period must be specified"):
        thresholds(KubeletConfig(eviction_soft={"memory.available": "1Gi"}))


class Images(FakeCRI):
    async def remove_image(self, request):
        self.calls.append("remove " + request.image.image)
        self.images = {n: i for n, i in self.images.items() if i.id != request.image.image}
        return pb.RemoveImageResponse()

    async def image_fs_info(self, request):
        return pb.ImageFsInfoResponse()


async def test_images_are_collected_oldest_first():
    clock = FakeClock()
    cri, events = Images(clock, ("used", "old", "new")), []
    disk = Disk(1000, 100, 0, 0)
    gc = ImageGC(cri, clock, KubeletConfig(), lambda *e: events.append(e), lambda path: disk)
    cri.containers["x"] = pb.ContainerStatus(id="x", image=pb.ImageSpec(image="used"))
    cri.owner["x"] = "s"

    async def listed(request):
        return pb.ListContainersResponse(containers=[pb.Container(id="x", image=pb.ImageSpec(image="used"))])

    cri.list_containers = listed
    young = cri.images.pop("new")
    await gc.detect()
    await clock.advance(200)
    cri.images["new"] = young
    await gc.detect()
    assert await gc.collect() == 7
    assert cri.calls == ["remove sha256:old"]
    assert events[0][1] == "FreeDiskSpaceFailed"
    await gc.free_all()
    assert cri.calls == ["remove sha256:old", "remove sha256:new"]


class Logs(FakeCRI):
    async def reopen_container_log(self, request):
        self.path.touch()


async def test_logs_are_rotated_and_compressed(tmp_path):
    clock = FakeClock()
    cri = Logs(clock)
    path = cri.path = tmp_path / "0.log"
    rotation = LogRotation(cri, clock, KubeletConfig(container_log_max_size="10", container_log_max_files=3))
    path.write_text("small")
    assert not await rotation.rotate("c", path)
    for i in range(4):
        path.write_text(f"large enough {i}")
        assert await rotation.rotate("c", path)
        await clock.advance(1)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "0.log",
        "0.log.20260101-000002.gz",
        "0.log.20260101-000003",
    ]
    assert gzip.decompress((tmp_path / "0.log.20260101-000002.gz").read_bytes()) == b"large enough 2"


def sized(cpu, generation=1, memory="64Mi"):
    one = pod(containers=[{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": memory}}}])
    one["metadata"]["generation"] = generation
    return one


def test_a_resize_is_granted_when_there_is_room():
    events, woken = Events(), []
    a = Allocation(events, woken.append)
    node = {"cpu": "2", "memory": "1Gi"}
    assert a.update(sized("1"), lambda: node, list)["metadata"]["generation"] == 1
    bigger = sized("1500m", 2)
    assert a.update(bigger, lambda: node, list) is bigger
    assert a.conditions(bigger) == [{"type": "PodResizeInProgress", "status": "True", "observedGeneration": 2}]
    a.settle(bigger, True)
    assert a.conditions(bigger) == []
    assert events.reasons == ["ResizeStarted", "ResizeCompleted"]


def test_a_resize_waits_or_can_never_be():
    events, woken = Events(), []
    a = Allocation(events, woken.append)
    node = {"cpu": "2", "memory": "1Gi"}
    a.update(sized("500m"), lambda: node, list)
    wanted = sized("1500m", 2)
    granted = a.update(wanted, lambda: node, lambda: [sized("1")])
    assert granted["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "500m"
    assert a.conditions(wanted)[0]["message"] == (
        "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
    )
    a.room_was_made()
    assert woken == ["uid-p"]
    assert a.update(wanted, lambda: node, list) is wanted
    never = sized("3", 3)
    a.update(never, lambda: node, list)
    assert a.conditions(never)[0]["reason"] == "Infeasible"
    assert events.reasons == ["ResizeDeferred", "ResizeStarted", "ResizeInfeasible"]


def test_after_a_restart_the_api_says_what_was_granted():
    one = sized("2")
    one["status"]["containerStatuses"] = [
        {"name": "c", "containerID": "x://1", "resources": {}, "allocatedResources": {"cpu": "1", "memory": "64Mi"}}
    ]
    assert from_status(one)["c"]["requests"]["cpu"] == "1"
    granted = Allocation(Events(), print).allocated(one)
    assert granted["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"


def test_resize_policies():
    c = {"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}
    now = amounts_of({"requests": {"cpu": "1", "memory": "1Mi"}})
    assert not needs_restart(c, amounts_of({"requests": {"cpu": "2", "memory": "1Mi"}}), now)
    assert needs_restart(c, amounts_of({"requests": {"cpu": "1", "memory": "2Mi"}}), now)
