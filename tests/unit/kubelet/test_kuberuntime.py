"""Bringing a pod up through CRI, what is told, and what is tried again."""

import asyncio
import os

import pytest

from berg.kubelet import runtime_status
from berg.kubelet.config import KubeletConfig
from berg.kubelet.dns import Configurer
from berg.kubelet.env import EnvError
from berg.kubelet.images import ImageManager
from berg.kubelet.kuberuntime import RuntimeManager, Surroundings
from berg.kubelet.start_errors import SyncError
from berg.kubelet.uninterrupted import uninterrupted
from berg.machinery.clock import FakeClock
from berg.runtime.cri import Code, CRIError

from .fakes import Events, FakeCRI, pod


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


class Rig:
    def __init__(self, tmp_path):
        self.clock = FakeClock()
        self.cri = FakeCRI(self.clock)
        self.events = Events()
        self.probes = {}
        self.env_error = None
        config = KubeletConfig(
            root_dir=str(tmp_path),
            pod_logs_dir=str(tmp_path / "logs"),
            container_log_links_dir=str(tmp_path / "links"),
            resolv_conf="",
        )
        for name in ("p", "a", "b"):
            config.pod_dir(f"uid-{name}").mkdir(parents=True)
        images = ImageManager(self.cri, self.clock, self.events)
        dns = Configurer([], "", "")
        around = Surroundings(
            environment=self.environment,
            probe=lambda type, id: self.probes.get((type, id)),
            cgroup_parent=lambda pod: "/kubepods/x",
            runtime_handler=self.handler,
        )
        self.manager = RuntimeManager(self.cri, self.clock, config, images, dns, self.events, around)

    async def environment(self, pod, c, ips):
        if self.env_error:
            raise EnvError(self.env_error)
        return {"A": "1", "IP": ips[0]}

    async def handler(self, pod):
        return ""

    async def sync(self, one):
        status = await runtime_status.read(self.cri, one["metadata"]["uid"])
        return await self.manager.sync_pod(one, status, {}, [])

    async def status(self, one):
        return await runtime_status.read(self.cri, one["metadata"]["uid"])


async def test_a_pod_starts(rig):
    one = pod(containers=[{"name": "c", "image": "busybox", "command": ["echo", "$(A)", "$(B)"]}])
    one["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    assert await rig.sync(one)
    assert rig.cri.calls == ["run_pod_sandbox p", "create_container c", "start_container c"]
    assert rig.events.reasons == ["Pulled", "Created", "Started"]
    config = next(iter(rig.cri.configs.values()))
    assert list(config.command) == ["echo", "1", "$(B)"]
    assert {e.key: e.value for e in config.envs}["IP"] == b"10.0.0.9"
    assert config.log_path == "c/0.log"
    assert {m.container_path for m in config.mounts} == {"/etc/hosts", "/dev/termination-log"}
    assert not await rig.sync(one)


async def test_a_crashing_container_backs_off_and_comes_back(rig):
    one = pod()
    await rig.sync(one)
    rig.cri.exit("c", 1)
    await rig.sync(one)  # the first restart is immediate
    rig.cri.exit("c", 1)
    with pytest.raises(SyncError) as e:
        await rig.sync(one)
    assert rig.manager.reasons.get("uid-p", "c").reason == "CrashLoopBackOff"
    assert rig.manager.reasons.get("uid-p", "c").message == (
        "back-off 10s restarting failed container=c pod=p_ns(uid-p)"
    )
    left = e.value.retry_at - rig.clock.now().timestamp()
    assert 9.9 < left < 10.1
    await rig.clock.advance(10.1)
    await rig.sync(one)
    assert rig.manager.reasons.get("uid-p", "c") is None
    assert (await rig.status(one)).find("c").restart_count == 2
    rig.cri.exit("c", 1)
    with pytest.raises(SyncError, match="back-off 20s"):
        await rig.sync(one)


async def test_an_image_that_cannot_be_pulled(rig):
    rig.cri.fail["pull_image"] = CRIError(Code.NOT_FOUND, "no such image")
    one = pod(containers=[{"name": "c", "image": "nope:1", "imagePullPolicy": "IfNotPresent"}])
    with pytest.raises(SyncError):
        await rig.sync(one)
    assert rig.manager.reasons.get("uid-p", "c").reason == "ErrImagePull"
    with pytest.raises(SyncError):
        await rig.sync(one)
    why = rig.manager.reasons.get("uid-p", "c")
    text = "rpc error: code = NotFound desc = no such image"
    assert why.reason == "ImagePullBackOff"
    assert why.message == f'Back-off pulling image "nope:1": ErrImagePull: {text}'
    assert ("Warning", "Failed", f'Failed to pull image "nope:1": {text}') in rig.events
    assert ("Warning", "Failed", "Error: ErrImagePull") in rig.events
    assert ("Normal", "BackOff", 'Back-off pulling image "nope:1"') in rig.events
    del rig.cri.fail["pull_image"]
    await rig.clock.advance(11)
    await rig.sync(one)
    assert (await rig.status(one)).find("c").state == "running"


async def test_never_and_wrong_names(rig):
    never = pod("a", containers=[{"name": "c", "image": "nope:1", "imagePullPolicy": "Never"}])
    with pytest.raises(SyncError, match="ErrImageNeverPull"):
        await rig.sync(never)
    with pytest.raises(SyncError, match="InvalidImageName"):
        await rig.sync(pod("b", containers=[{"name": "c", "image": "Not//Good"}]))


async def test_a_missing_config_map(rig):
    rig.env_error = 'configmap "x" not found'
    with pytest.raises(SyncError):
        await rig.sync(pod())
    assert rig.manager.reasons.get("uid-p", "c").reason == "CreateContainerConfigError"
    assert ("Warning", "Failed", 'Error: configmap "x" not found') in rig.events


async def test_non_root_is_verified(rig):
    one = pod(securityContext={"runAsNonRoot": True})
    with pytest.raises(SyncError, match="image will run as root"):
        await rig.sync(one)
    one["spec"]["securityContext"]["runAsUser"] = 7
    await rig.sync(one)


async def test_a_failing_post_start_hook_kills_the_container(rig):
    rig.cri.exec_results["false",] = (4, b"bad")
    one = pod()
    one["spec"]["containers"][0]["lifecycle"] = {"postStart": {"exec": {"command": ["false"]}}}
    with pytest.raises(SyncError, match="PostStartHookError"):
        await rig.sync(one)
    assert {"FailedPostStartHook", "Killing"} <= set(rig.events.reasons)
    assert (await rig.status(one)).find("c").state == "exited"


async def test_a_sandbox_that_cannot_be_made(rig):
    rig.cri.fail["run_pod_sandbox"] = CRIError(Code.UNKNOWN, "no network")
    with pytest.raises(SyncError):
        await rig.sync(pod())
    text = "Failed to create pod sandbox: rpc error: code = Unknown desc = no network"
    assert ("Warning", "FailedCreatePodSandBox", text) in rig.events


async def test_a_failed_liveness_probe_restarts(rig):
    one = pod(terminationGracePeriodSeconds=30)
    await rig.sync(one)
    id = (await rig.status(one)).find("c").id
    rig.probes["liveness", id] = False
    await rig.sync(one)
    assert ("Normal", "Killing", "Container c failed liveness probe, will be restarted") in rig.events
    assert "stop_container c 30" in rig.cri.calls
    assert (await rig.status(one)).find("c").restart_count == 1


async def test_removing_leaves_nothing(rig):
    one = pod()
    await rig.sync(one)
    await rig.manager.remove_pod(await rig.status(one))
    assert (rig.cri.containers, rig.cri.sandboxes) == ({}, {})
    assert os.listdir(rig.manager.config.container_log_links_dir) == []


async def test_uninterrupted_work_is_seen_through():
    gate, done = asyncio.Event(), []

    async def work():
        await gate.wait()
        done.append(1)

    task = asyncio.ensure_future(uninterrupted(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]
