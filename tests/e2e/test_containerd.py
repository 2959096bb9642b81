"""A cluster over containerd's socket: a containerd of the test's own, with its own directories."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.judge]

WEB, BOX, PAUSE = "registry.example/web:1", "registry.example/box:1", "registry.example/pause:1"
CONFIG = """\
version = 2
root = "{base}/root"
state = "{base}/state"
[grpc]
address = "{base}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "{pause}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
"""


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "config.toml").write_text(CONFIG.format(base=tmp_path, pause=PAUSE))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["containerd", "--config", str(tmp_path / "config.toml")], stdout=log, stderr=log)
    socket = tmp_path / "containerd.sock"
    try:
        eventually(lambda: socket.is_socket() or process.poll(), "containerd listens")
        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
        yield socket
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def on_containerd(containerd: Path, tmp_path: Path) -> Iterator[Cluster]:
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "BERG_HOME": str(tmp_path)}
    made = Cluster("ctd", tmp_path / "ctd", tmp_path / "kubeconfig", environment)
    up = ("up", "--name", "ctd", "--runtime", "containerd", "--containerd-socket", str(containerd))
    try:
        made.berg(*up, timeout=120)
        wanted = [f"nginx={WEB}", f"busybox={BOX}", f"pause={PAUSE}"]
        build = [sys.executable, str(ROOT / "tools/build_images.py"), "--out", str(tmp_path / "images"), *wanted]
        subprocess.run(build, check=True, capture_output=True)
        for archive in (tmp_path / "images").glob("*.tar"):
            made.berg("image", "import", "--name", "ctd", str(archive))
        yield made
    finally:
        made.berg("down", "--name", "ctd", "--purge", check=False)


def iptables() -> str:
    """The chains of iptables' table for translated addresses; empty where there is no such table."""
    done = subprocess.run(["nft", "list", "table", "ip", "nat"], capture_output=True, text=True, check=False)
    return "".join(sorted(re.findall(r"chain \S+ ", done.stdout)))


def test_pods_run_and_reach_each_other(on_containerd: Cluster, containerd: Path) -> None:
    c = on_containerd
    tables = iptables()
    [node] = c.get("nodes")["items"]
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    c.kubectl("create", "deployment", "web", f"--image={WEB}", "--replicas=2")
    c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    c.kubectl("expose", "deployment", "web", "--port=80")
    assert "index.html" in c.out("exec", "deployment/web", "--", "ls", "/usr/share/nginx/html")
    c.kubectl(
        "run",
        "client",
        f"--image={BOX}",
        "--restart=Never",
        "--",
        "wget",
        "-qO-",
        "http://web.default.svc.cluster.local",
    )
    c.kubectl("wait", "pod/client", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert "nginx" in c.out("logs", "client").lower()

    on_a_port = {"containers": [{"name": "c", "image": WEB, "ports": [{"containerPort": 80, "hostPort": 8097}]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "on-a-port"}, "spec": on_a_port}
    c.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    c.kubectl("wait", "pod/on-a-port", "--for=condition=Ready", "--timeout=60s")
    assert "CNI-HOSTPORT-DNAT" in iptables(), "the test sees what portmap makes"

    c.berg("down", "--name", "ctd", "--purge")
    assert iptables() == tables, "the plugins' chains went with the last pod"
    time.sleep(0.2)
    left = subprocess.run(
        ["ctr", "--address", str(containerd), "-n", "k8s.io", "containers", "ls", "-q"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert left.stdout == ""
