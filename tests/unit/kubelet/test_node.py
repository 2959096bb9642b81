"""The node's own status, its lease, cgroup names, the runtime's readiness."""

import asyncio

from berg.kubelet.cgroups import CgroupManager
from berg.kubelet.config import KubeletConfig
from berg.kubelet.machine import Machine
from berg.kubelet.node_status import NodeFacts, NodeStatus
from berg.kubelet.runtime_state import RuntimeState
from berg.machinery.clock import FakeClock
from berg.machinery.status import already_exists, not_found
from berg.runtime.api import cri_pb2 as pb

from .fakes import Events, FakeCRI, pod

MACHINE = Machine(4, 8 << 30, 0, "m", "s", "b", "6.1", "Debian", "amd64", {"2Mi": 0})


class Api:
    def __init__(self, node=None):
        self.node = node
        self.lease = None
        self.patches = []

    async def create(self, r, obj, namespace=None):
        if r.kind == "Lease":
            self.lease = obj
            return obj
        if self.node is not None:
            raise already_exists("", "nodes", "n1")
        self.node = {**obj, "metadata": {**obj["metadata"], "uid": "u"}}
        return self.node

    async def get(self, r, namespace, name):
        if r.kind == "Lease":
            if self.lease is None:
                raise not_found("", "leases", name)
            return self.lease
        return self.node

    async def update(self, r, obj):
        self.lease = obj
        return obj

    async def patch(self, r, namespace, name, patch, **kw):
        self.patches.append((patch, kw))
        if "status" in patch:
            status = {**self.node.get("status", {}), **patch["status"]}
            self.node = {**self.node, "status": status}
        else:
            meta = {**self.node["metadata"], "labels": patch["metadata"]["labels"]}
            self.node = {**self.node, "metadata": meta}
        return self.node


class Rig:
    def __init__(self, tmp_path, api, **config):
        self.clock = FakeClock()
        self.cri = FakeCRI(self.clock)
        self.api = api
        self.events = Events()
        self.config = KubeletConfig(node_name="n1", root_dir=str(tmp_path), **config)
        self.state = RuntimeState(self.cri, self.clock, lambda: self.node.poke())
        self.facts = NodeFacts(MACHINE, ["192.0.2.1"])
        self.node = NodeStatus(api, self.cri, self.clock, self.config, self.state, self.facts, self.events)

    def condition(self, type="Ready"):
        return next(c for c in self.api.node["status"]["conditions"] if c["type"] == type)


async def test_a_node_registers_and_lives(tmp_path):
    rig = Rig(tmp_path, Api(), system_reserved={"cpu": "500m", "memory": "1Gi"})
    await rig.state.identify()
    await rig.state.check()
    await rig.node.start()
    await rig.clock.advance(0)
    status = rig.api.node["status"]
    assert rig.condition()["message"] == "kubelet is posting ready status"
    assert (status["capacity"]["cpu"], status["allocatable"]["cpu"]) == ("4", "3500m")
    assert status["allocatable"]["memory"] == f"{(8 << 20) - (1 << 20) - 102400}Ki"
    assert status["nodeInfo"]["containerRuntimeVersion"] == "fake://1"
    assert status["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.1"}
    assert status["images"] == [{"names": ["busybox:latest"], "sizeBytes": 7}]
    assert rig.api.lease["spec"]["leaseDurationSeconds"] == 40
    first = rig.api.lease["spec"]["renewTime"]
    await rig.clock.advance(10)
    assert rig.api.lease["spec"]["renewTime"] > first
    await rig.node.stop()


async def test_what_is_not_ready_is_said_at_once(tmp_path):
    rig = Rig(tmp_path, Api())

    async def status(request):
        bad = pb.RuntimeCondition(
            type="NetworkReady", status=False, reason="NetworkPluginNotReady", message="no plugin"
        )
        good = pb.RuntimeCondition(type="RuntimeReady", status=True)
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=[good, bad]))

    good = rig.cri.status
    rig.cri.status = status
    await rig.state.identify()
    await rig.state.check()
    await rig.node.start()
    await rig.clock.advance(0)
    assert rig.condition()["status"] == "False"
    assert rig.condition()["reason"] == "KubeletNotReady"
    assert rig.condition()["message"] == (
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no plugin"
    )
    rig.cri.status = good
    await rig.state.check()
    await rig.clock.advance(0)
    assert rig.condition()["status"] == "True"
    assert rig.events.reasons[-1] == "NodeReady"
    await rig.node.stop()


async def test_a_node_that_is_there_keeps_what_others_wrote(tmp_path):
    there = {
        "metadata": {"name": "n1", "uid": "u", "labels": {"zone": "a"}},
        "spec": {},
        "status": {
            "capacity": {"example.com/gpu": "2"},
            "conditions": [{"type": "NetworkUnavailable", "status": "False"}],
        },
    }
    rig = Rig(tmp_path, Api(there), node_labels={"role": "x"})
    await rig.state.identify()
    await rig.state.check()
    await rig.node.start()
    await rig.clock.advance(0)
    assert rig.api.patches[0][0]["metadata"]["labels"]["role"] == "x"
    assert rig.api.node["status"]["capacity"]["example.com/gpu"] == "2"
    assert rig.condition("NetworkUnavailable")["status"] == "False"
    await rig.node.stop()


async def test_a_quiet_node_writes_only_its_lease(tmp_path):
    rig = Rig(tmp_path, Api())
    await rig.state.identify()
    await rig.state.check()
    rig.state.start()
    await rig.node.start()
    await rig.clock.advance(0)
    before = len(rig.api.patches)
    await rig.clock.advance(100)
    assert len(rig.api.patches) <= before + 1
    await rig.clock.advance(300)
    assert len(rig.api.patches) > before
    await rig.node.stop()
    await rig.state.stop()
    await asyncio.sleep(0)


def asking(cpu, memory):
    resources = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}
    return pod(containers=[{"name": "c", "image": "i", "resources": resources}])


def v1(tmp_path):
    for controller in ("cpu", "memory", "pids", "freezer"):
        (tmp_path / controller).mkdir()
    return CgroupManager(cgroup_root="/x", mount=tmp_path)


def test_cgroups_by_class(tmp_path):
    manager = v1(tmp_path)
    assert manager.parent(asking("1", "1Gi")) == "/x/kubepods/poduid-p"
    assert manager.parent(pod()) == "/x/kubepods/besteffort/poduid-p"
    systemd = CgroupManager(driver="systemd", mount=tmp_path)
    assert systemd.parent(pod()) == "kubepods-besteffort-poduid_p.slice"


def test_cgroups_have_limits_and_go(tmp_path):
    manager = v1(tmp_path)
    one = asking("500m", "64Mi")
    for controller in ("cpu", "memory", "pids"):
        (tmp_path / controller / "x/kubepods/poduid-p").mkdir(parents=True)
    assert manager.exists(one)
    manager.apply(one)
    assert (tmp_path / "cpu/x/kubepods/poduid-p/cpu.shares").read_text() == "512"
    assert (tmp_path / "cpu/x/kubepods/poduid-p/cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "memory/x/kubepods/poduid-p/memory.limit_in_bytes").read_text() == str(64 << 20)
    assert manager.pods() == {"uid-p"}


def test_cgroups_of_version_2(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    manager = CgroupManager(mount=tmp_path)
    directory = tmp_path / "kubepods" / "poduid-p"
    directory.mkdir(parents=True)
    manager.apply(asking("500m", "64Mi"))
    assert (directory / "cpu.max").read_text() == "50000 100000"
    assert (directory / "memory.max").read_text() == str(64 << 20)
    assert (directory / "cpu.weight").read_text() == "59"
