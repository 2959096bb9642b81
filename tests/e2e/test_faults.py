"""What goes wrong, and that nothing is lost by it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from berg.lifecycle.remains import unmount_below
from berg.lifecycle.spec import ClusterSpec

from .conftest import BERG, Cluster, eventually, run

pytestmark = [pytest.mark.root, pytest.mark.judge]

BOX = "registry.k8s.io/e2e-test-images/busybox:1.0"


def test_up_again_is_fine_and_another_port_for_the_same_name_is_not(cluster: Cluster) -> None:
    assert "was up already" in cluster.berg("up", "--name", "e2e").stderr
    refused = cluster.berg("up", "--name", "e2e", "--api-port", "7999", check=False)
    assert refused.returncode == 1
    assert "cluster 'e2e' is up on port" in refused.stderr
    assert "berg down --name e2e" in refused.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = str(other.getsockname()[1])
        refused = _up(tmp_path, "--api-port", port)
    assert refused.returncode == 1
    assert f"port {port} is taken" in refused.stderr


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{broken", "can't be read"),
        (json.dumps({"layout": 99}), "data layout 99"),
    ],
)
def test_a_data_directory_of_another_version_or_damaged(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "spec.json").write_text(spec)
    refused = _up(tmp_path)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "berg down --purge" in refused.stderr
    _berg(tmp_path, "down", "--name", "faulty", "--purge")
    assert not (tmp_path / "faulty").exists()


def test_data_without_its_spec_is_not_overwritten(tmp_path: Path) -> None:
    store = tmp_path / "faulty" / "store"
    store.mkdir(parents=True)
    (store / "something").write_text("precious")
    refused = _up(tmp_path)
    assert refused.returncode == 1
    assert (store / "something").read_text() == "precious"


@pytest.mark.parametrize("role", ["apiserver", "controllers", "node", "supervisor"])
def test_any_process_may_be_killed(cluster: Cluster, namespace: str, role: str) -> None:
    cluster.kubectl("-n", namespace, "run", "box", f"--image={BOX}", "--", "sleep", "3600")
    cluster.kubectl("-n", namespace, "wait", "pod/box", "--for=condition=Ready", "--timeout=60s")
    before = _process_in(cluster, namespace)
    name, pid = _process(cluster, role)

    os.kill(pid, signal.SIGKILL)

    eventually(lambda: _process(cluster, role) not in [("", 0), (name, pid)], f"{role} starts again")
    eventually(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "the API is back")
    assert cluster.get("-n", namespace, "pod", "box")["status"]["phase"] == "Running"
    eventually(lambda: _exec(cluster, namespace).returncode == 0, "exec works again")
    assert _process_in(cluster, namespace) == before, "the container was not restarted"
    cluster.kubectl("-n", namespace, "run", "after", f"--image={BOX}", "--", "sleep", "3600")
    cluster.kubectl("-n", namespace, "wait", "pod/after", "--for=condition=Ready", "--timeout=60s")


def test_acknowledged_writes_survive_a_kill(cluster: Cluster, namespace: str) -> None:
    _, pid = _process(cluster, "apiserver")
    acknowledged: list[str] = []
    for i in range(30):
        if i == 20:
            os.kill(pid, signal.SIGKILL)
        done = cluster.kubectl("-n", namespace, "create", "configmap", f"c{i}", check=False)
        if done.returncode == 0:
            acknowledged.append(f"c{i}")
    assert len(acknowledged) >= 20
    eventually(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "the API is back")
    there = {c["metadata"]["name"] for c in cluster.get("-n", namespace, "configmaps")["items"]}
    assert set(acknowledged) <= there


def test_a_full_disk_refuses_writes_and_loses_none(tmp_path: Path) -> None:
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(home)], check=True)
    c = Cluster(
        "full",
        home / "full",
        home / "kubeconfig",
        {**os.environ, "BERG_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")},
    )
    try:
        c.berg("up", "--name", "full", "--runtime", "sim")
        c.kubectl("create", "configmap", "before")
        stuffing = home / "stuffing"
        subprocess.run(["dd", "if=/dev/zero", f"of={stuffing}", "bs=4k"], capture_output=True, check=False)
        big = tmp_path / "big"
        big.write_text("x" * 500_000)
        refused = [c.kubectl("create", "configmap", f"c{i}", f"--from-file={big}", check=False) for i in range(4)]
        assert any(r.returncode for r in refused), "a full disk takes nothing"
        assert "space" in "".join(r.stderr for r in refused).lower()
        kept = {f"c{i}" for i, r in enumerate(refused) if r.returncode == 0} | {"before"}
        stuffing.unlink()
        eventually(lambda: c.kubectl("create", "configmap", "after", check=False).returncode == 0, "it writes again")
        there = {m["metadata"]["name"] for m in c.get("configmaps")["items"]}
        assert kept | {"after"} <= there
        assert c.berg("down", "--name", "full").returncode == 0
        c.berg("up", "--name", "full")
        there = {m["metadata"]["name"] for m in c.get("configmaps")["items"]}
        assert kept | {"after"} <= there
    finally:
        c.berg("down", "--name", "full", "--purge", check=False)
        subprocess.run(["umount", "-l", str(home)], check=False)


def test_an_oci_runtime_that_fails_is_told_in_events(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "run", "bad", f"--image={BOX}", "--restart=Never", "--", "/no/such/program")

    def reason() -> dict[str, Any]:
        [status] = cluster.get("-n", namespace, "pod", "bad")["status"].get("containerStatuses") or [{}]
        return dict(status.get("state", {}).get("terminated") or {})

    ended = eventually(reason, "the container ends")
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "/no/such/program" in ended["message"]


def test_after_a_reboot_pods_start_again_where_they_were(cluster: Cluster, namespace: str) -> None:
    """A reboot as far as one can be played: every process gone, and all that a kernel forgets."""
    cluster.kubectl("-n", namespace, "run", "box", f"--image={BOX}", "--", "sleep", "3600")
    cluster.kubectl("-n", namespace, "wait", "pod/box", "--for=condition=Ready", "--timeout=60s")
    uid = cluster.get("-n", namespace, "pod", "box")["metadata"]["uid"]
    _forget_everything(cluster)

    cluster.berg("up", "--name", "e2e", "--wait", "120", timeout=180)

    def restarted() -> bool:
        pod = cluster.get("-n", namespace, "pod", "box")
        [status] = pod["status"]["containerStatuses"]
        return bool(pod["metadata"]["uid"] == uid and status["ready"] and status["restartCount"] == 1)

    eventually(restarted, "the same pod, started once more")
    assert _exec(cluster, namespace).returncode == 0


def _forget_everything(cluster: Cluster) -> None:
    spec = ClusterSpec.read(cluster.directory / "spec.json")
    state = Path("/run/berg") / spec.unique
    # All at once and until none is left: a process whose supervisor is gone starts another.
    mine = f"berg.lifecycle.supervisor {cluster.directory}|berg.cli.role [a-z0-9-]+ {cluster.directory}|{state}/"

    def killed() -> bool:
        found = subprocess.run(["pgrep", "-f", mine], capture_output=True, text=True, check=False).stdout.split()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return not found

    eventually(lambda: killed() and time.sleep(0.5) is None and killed(), "every process is gone")
    for procs in Path("/sys/fs/cgroup").glob(f"**/berg-{spec.unique}/**/cgroup.procs"):
        for pid in procs.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    for place in (cluster.directory, state):
        assert unmount_below(place) == []
    shutil.rmtree(state)
    shutil.rmtree(cluster.directory / "run")
    subprocess.run(["ip", "link", "del", spec.bridge], check=True)
    subprocess.run(["nft", "delete", "table", "inet", f"berg-{spec.unique}-cni"], check=True)


def _exec(cluster: Cluster, namespace: str) -> subprocess.CompletedProcess[str]:
    return cluster.kubectl("-n", namespace, "exec", "box", "--", "true", check=False)


def _process_in(cluster: Cluster, namespace: str) -> Any:
    """The container's id and restart count."""
    [status] = cluster.get("-n", namespace, "pod", "box")["status"]["containerStatuses"]
    return status["containerID"], status["restartCount"]


def _process(cluster: Cluster, role: str) -> tuple[str, int]:
    """(name, process id) of the cluster's process of that role; ("", 0) when there is none now."""
    [row] = json.loads(cluster.berg("status", "--name", "e2e", "-o", "json").stdout)
    return next(((p["role"], p["pid"]) for p in row["processes"] if p["role"].startswith(role)), ("", 0))


def _berg(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BERG_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")}
    return run([*BERG, *args], environment, False, 60)


def _up(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return _berg(home, "up", "--name", "faulty", "--runtime", "sim", "--wait", "5", *args)
