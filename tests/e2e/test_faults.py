"""What goes wrong, and that nothing is lost by it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

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
