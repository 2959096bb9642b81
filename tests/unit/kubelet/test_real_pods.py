"""Real pods: the API server, Berg's runtime over an OCI runtime, and the kubelet between them."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from berg.kubelet.config import KubeletConfig
from berg.kubelet.kubelet import Kubelet
from berg.machinery import pki
from berg.machinery.resources import resource
from berg.runtime.network import PodNetworkResult
from berg.testing.cluster import Cluster

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (shutil.which("crun") or shutil.which("runc")), reason="needs crun or runc"),
    pytest.mark.skipif(not os.path.exists("/bin/busybox"), reason="needs busybox-static"),
]
PODS = resource("pods")
CGROUP = f"/berg-test-{os.getpid()}"


class Loopback:
    """Pods have an address and no network."""

    async def setup(self, request):
        return PodNetworkResult(["10.255.255.1"])

    async def teardown(self, request):
        pass

    async def status(self):
        return None


def image(tmp_path):
    """A docker archive with busybox in it."""
    import hashlib
    import io
    import json
    import tarfile

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "tmp"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(info)
        with open("/bin/busybox", "rb") as f:
            info = tarfile.TarInfo("bin/busybox")
            info.size, info.mode = os.fstat(f.fileno()).st_size, 0o755
            tar.addfile(info, f)
        for name in ("sh", "sleep", "cat", "echo", "test", "true", "false"):
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    data = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["test/busybox:1"], "Layers": ["layer.tar"]}]
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (
            ("layer.tar", data),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def remove_cgroups():
    for root in (CGROUP[1:], "*/" + CGROUP[1:]):
        for found in Path("/sys/fs/cgroup").glob(root):
            for directory, _, _ in os.walk(found, topdown=False):
                os.rmdir(directory)


class Node:
    """One cluster with one real node; the runtime outlives kubelets."""

    def __init__(self, tmp_path):
        self.dir = tmp_path
        self.cluster = Cluster(nodes=0, scheduler=False)

    async def __aenter__(self):
        from berg.runtime.own.config import OwnConfig
        from berg.runtime.own.runtime import BergRuntime

        await self.cluster.start()
        self.state = f"/run/berg-test-{os.getpid()}"
        self.runtime = BergRuntime(
            OwnConfig(root=str(self.dir / "runtime"), state=self.state, default_cgroup_parent=CGROUP), Loopback()
        )
        await self.runtime.start()
        await self.runtime.images.import_archive(image(self.dir))
        directory = self.cluster._dir
        ca = pki.CertificateAuthority(pki.KeyPair.read(directory, "ca"))
        ca.issue("system:node:n1", names=["n1", "127.0.0.1"], server=True).write(directory, "n1")
        self.config = KubeletConfig(
            node_name="n1",
            node_ip="127.0.0.1",
            address="127.0.0.1",
            root_dir=str(self.dir / "kubelet"),
            pod_logs_dir=str(self.dir / "logs"),
            container_log_links_dir=str(self.dir / "links"),
            port=0,
            healthz_port=0,
            cgroup_root=CGROUP,
            static_pod_path=str(self.dir / "manifests"),
            tls_cert_file=str(directory / "n1.crt"),
            tls_private_key_file=str(directory / "n1.key"),
            client_ca_file=str(directory / "ca.crt"),
            eviction_hard={},
        )
        os.makedirs(self.config.static_pod_path)
        await self.start_kubelet()
        return self

    async def start_kubelet(self):
        client = self.cluster.client_as("system:node:n1", "system:nodes")
        self.kubelet = Kubelet(client, self.runtime, self.config)
        await self.kubelet.start()

    async def __aexit__(self, *_):
        for pod in (await self.cluster.client.list(PODS, "default"))["items"]:
            await self.cluster.client.delete(PODS, "default", pod["metadata"]["name"], grace_period_s=1)
        for manifest in os.listdir(self.config.static_pod_path):
            os.unlink(os.path.join(self.config.static_pod_path, manifest))
        async with asyncio.timeout(20):
            while self.kubelet.pods.pods or self.kubelet.syncer.in_runtime:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert os.listdir(self.config.pods_dir) == []
        assert os.listdir(self.config.pod_logs_dir) == []
        await self.kubelet.stop()
        await self.runtime.stop()
        await self.cluster.stop()
        remove_cgroups()
        shutil.rmtree(self.state)

    async def run(self, name, command, **spec):
        await self.cluster.client.create(PODS, a_pod(name, command, **spec))

    async def until(self, name, holds):
        return await self.cluster.until("pods", name, holds)


def a_pod(name, command, **spec):
    c = {"name": "c", "image": "test/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", command]}
    c.update(spec.pop("container", {}))
    rest = {"nodeName": "n1", "terminationGracePeriodSeconds": 1, **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [c], **rest}}


def phase(wanted):
    return lambda pod: pod["status"].get("phase") == wanted


def state(pod):
    return pod["status"]["containerStatuses"][0]["state"]


async def test_pods_run_end_and_crash(tmp_path):
    async with Node(tmp_path) as node:
        await node.run("up", "sleep 1000")
        await node.run("well", "exit 0", restartPolicy="Never")
        await node.run("badly", "echo -n why > /dev/termination-log; exit 3", restartPolicy="Never")
        await node.run("again", "exit 1")
        up = await node.until("up", phase("Running"))
        assert up["status"]["podIP"] == "10.255.255.1"
        assert up["status"]["containerStatuses"][0]["ready"]
        assert (state(await node.until("well", phase("Succeeded")))["terminated"]["reason"]) == "Completed"
        ended = state(await node.until("badly", phase("Failed")))["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "why")
        crashed = await node.until(
            "again", lambda pod: "waiting" in state(pod) and state(pod)["waiting"].get("message")
        )
        assert state(crashed)["waiting"]["reason"] == "CrashLoopBackOff"


async def test_resources_are_enforced(tmp_path):
    async with Node(tmp_path) as node:
        sure = {"cpu": "100m", "memory": "32Mi"}
        await node.run("sure", "sleep 1000", container={"resources": {"requests": sure, "limits": sure}})
        limits = {"resources": {"limits": {"memory": "10Mi"}}}
        hungry = "sleep 0.1; exec busybox dd if=/dev/zero of=/dev/null bs=100M"
        await node.run("hungry", hungry, container=limits, restartPolicy="Never")
        assert (await node.until("sure", phase("Running")))["status"]["qosClass"] == "Guaranteed"
        assert state(await node.until("hungry", phase("Failed")))["terminated"]["reason"] == "OOMKilled"


async def test_a_kubelet_that_is_started_anew_finds_its_pods(tmp_path):
    async with Node(tmp_path) as node:
        await node.run("kept", "sleep 1000")
        await node.run("gone", "sleep 1000")
        before = await node.until("kept", phase("Running"))
        await node.until("gone", phase("Running"))
        await node.kubelet.stop()
        await node.cluster.client.delete(PODS, "default", "gone", grace_period_s=0)
        await node.start_kubelet()
        async with asyncio.timeout(10):
            while len(node.kubelet.pleg.known) > 1:
                await asyncio.sleep(0.05)
                await node.kubelet.pleg.relist()
        after = await node.cluster.client.get(PODS, "default", "kept")
        assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]


async def test_config_maps_reach_a_running_pod(tmp_path):
    async with Node(tmp_path) as node:
        maps = resource("configmaps")
        await node.run(
            "reader",
            'until test "$(cat /cm/k)" = new; do sleep 0.05; done',
            restartPolicy="Never",
            container={"volumeMounts": [{"name": "v", "mountPath": "/cm"}]},
            volumes=[{"name": "v", "configMap": {"name": "late"}}],
        )
        one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}}
        created = await node.cluster.client.create(maps, {**one, "data": {"k": "old"}})
        await node.until("reader", phase("Running"))
        await node.cluster.client.update(maps, {**created, "data": {"k": "new"}})
        await node.until("reader", phase("Succeeded"))


async def test_a_static_pod_has_a_mirror(tmp_path):
    import json

    async with Node(tmp_path) as node:
        manifest = a_pod("fixed", "sleep 1000")
        del manifest["spec"]["nodeName"]
        with open(os.path.join(node.config.static_pod_path, "fixed.yaml"), "w") as f:  # noqa: ASYNC230
            json.dump(manifest, f)
        mirror = await node.until("fixed-n1", phase("Running"))
        assert mirror["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
        await node.cluster.client.delete(PODS, "default", "fixed-n1", grace_period_s=0)
        again = await node.until("fixed-n1", phase("Running"))
        assert again["metadata"]["uid"] != mirror["metadata"]["uid"]
        assert again["status"]["containerStatuses"][0]["restartCount"] == 0
