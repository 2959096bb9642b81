"""HTTP/2 with the clients that choose it by themselves: kubectl, which leaves it for upgrades, and curl."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from berg.cli.kubectl import find
from tests.e2e.conftest import Cluster, eventually, run

BOX = "registry.k8s.io/e2e-test-images/busybox:1.0"


def _kubectl(cluster: Cluster, environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    program = find("kubectl")
    assert program
    return run([program, *args], cluster.environment | environment, True, 90)


def test_kubectl_speaks_it_by_itself(cluster: Cluster) -> None:
    over_2 = _kubectl(cluster, {"GODEBUG": "http2debug=1"}, "get", "namespace", "default", "-o", "json")
    assert "http2: Transport received HEADERS" in over_2.stderr
    without = {"GODEBUG": "http2debug=1", "DISABLE_HTTP2": "yes"}
    over_1 = _kubectl(cluster, without, "get", "namespace", "default", "-o", "json")
    assert "http2: Transport received" not in over_1.stderr
    assert json.loads(over_2.stdout) == json.loads(over_1.stdout)


def test_lists_larger_than_the_windows(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    for n in range(8):
        (tmp_path / f"data{n}").write_bytes(bytes([65 + n]) * 900_000)
        cluster.kubectl("-n", namespace, "create", "configmap", f"large{n}", f"--from-file={tmp_path}/data{n}")
    found = cluster.get("-n", namespace, "configmaps")
    data = [v for item in found["items"] for k, v in (item.get("data") or {}).items() if k.startswith("data")]
    assert sorted(len(v) for v in data) == [900_000] * 8


def test_watch_logs_and_exec_side_by_side(cluster: Cluster, namespace: str) -> None:
    """A watch and a followed log on HTTP/2, exec on the HTTP/1.1 that kubectl asks for it."""
    k = ("-n", namespace)
    script = "n=0; while true; do echo line $n; n=$((n+1)); sleep 1; done"
    cluster.kubectl(*k, "run", "talker", f"--image={BOX}", "--", "sh", "-c", script)
    cluster.kubectl(*k, "wait", "pod/talker", "--for=condition=Ready", "--timeout=60s")
    watch = cluster.popen(*k, "get", "configmaps", "--watch", "-o", "name")
    logs = cluster.popen(*k, "logs", "-f", "talker")
    try:
        talk, events = logs.stdout, watch.stdout
        assert talk is not None and events is not None
        assert [talk.readline() for _ in range(3)] == [f"line {n}\n" for n in range(3)]
        cluster.kubectl(*k, "create", "configmap", "seen")
        eventually(lambda: "configmap/seen" in events.readline(), "the watch tells of the configmap")
        assert cluster.out(*k, "exec", "talker", "--", "echo", "hello") == "hello"
    finally:
        for process in (watch, logs):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    cluster.kubectl(*k, "delete", "pod", "talker", "--now")


@pytest.fixture
def credentials(cluster: Cluster, tmp_path: Path) -> tuple[str, list[str]]:
    """Address, and what curl needs to be who the kubeconfig says."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    options: list[str] = []
    for option, where, name in (
        ("--cacert", server, "certificate-authority-data"),
        ("--cert", user, "client-certificate-data"),
        ("--key", user, "client-key-data"),
    ):
        path = tmp_path / name
        path.write_bytes(base64.b64decode(where[name]))
        options += [option, str(path)]
    return server["server"], options


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl(cluster: Cluster, credentials: tuple[str, list[str]]) -> None:
    server, options = credentials
    told = ["-s", "-w", "%{http_version} %{http_code}\n"]

    def ask(*options_and_paths: str) -> list[str]:
        more: list[str] = []
        for one in options_and_paths:
            more += ["-o", "/dev/null", f"{server}{one}"] if one.startswith("/api") else [one]
        return run(["curl", *options, *told, *more], cluster.environment, True, 60).stdout.split("\n")[:-1]

    assert ask("--http2", "/api/v1/namespaces") == ["2 200"]
    assert ask("--http1.1", "/api/v1/namespaces") == ["1.1 200"]
    side_by_side = ask("-Z", "--parallel-max", "50", *(f"/api/v1/nodes?limit={n}" for n in range(1, 200)))
    assert side_by_side == ["2 200"] * 199
    large = cluster.directory.parent / "large"
    large.write_bytes(b"x" * (4 << 20))
    assert ask("-H", "Content-Type: application/json", "--data-binary", f"@{large}", "/api/v1/namespaces") == ["2 413"]
