"""Programs written with client-go and controller-runtime (`go/`), speaking protobuf: `make judges-go`.

They are built from the Go proxy, which takes minutes the first time; so they are not part of `make test`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster, eventually, run
from tests.e2e.test_kopf import definition

SOURCE = Path(__file__).parent / "go"
pytestmark = [pytest.mark.judge, pytest.mark.go]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if not go:
        pytest.fail("needs Go on the path")
    directory = tmp_path_factory.mktemp("go")
    shutil.copytree(SOURCE, directory / "src")
    for command in ([go, "mod", "tidy"], [go, "build", "-o", str(directory), "./..."]):
        subprocess.run(command, cwd=directory / "src", check=True, env={**os.environ, "GOFLAGS": "-mod=mod"})
    return directory


def test_informer(cluster: Cluster, namespace: str, programs: Path) -> None:
    done = run([str(programs / "informer"), namespace], cluster.environment, True, 120)
    assert done.stdout.strip() == "all of it"


@pytest.fixture
def sites(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(definition("sites", "Site", "go.example.com")))
    cluster.kubectl("wait", "--for=condition=Established", "crd/sites.go.example.com")
    yield
    cluster.kubectl("delete", "crd/sites.go.example.com", "--wait=false")


def test_operator(cluster: Cluster, namespace: str, sites: None, programs: Path, tmp_path: Path) -> None:
    def get(what: str, path: str) -> str:
        return cluster.out("-n", namespace, "get", what, "-o", f"jsonpath={{{path}}}", check=False)

    log = (tmp_path / "log").open("w")
    processes = [
        subprocess.Popen([str(programs / "operator"), namespace], env=cluster.environment, stdout=log, stderr=log)
        for _ in range(2)
    ]
    try:
        site = {
            "apiVersion": "go.example.com/v1",
            "kind": "Site",
            "metadata": {"name": "s", "namespace": namespace},
            "spec": {"replicas": 2},
        }
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(site))
        eventually(lambda: get("site/s", ".status.ready") == "2", f"a site\n{(tmp_path / 'log').read_text()[-3000:]}")
        assert get("site/s", ".status.address") == get("service/s", ".spec.clusterIP")
        cluster.kubectl("-n", namespace, "delete", "service/s")
        eventually(lambda: get("service/s", ".spec.clusterIP"), "the service, made again")
        leader = get("lease/sites", ".spec.holderIdentity")
        processes[0].terminate()
        processes[0].wait(20)
        cluster.kubectl("-n", namespace, "patch", "site/s", "--type=merge", "-p", '{"spec":{"replicas":1}}')
        eventually(lambda: get("deployment/s", ".spec.replicas") == "1", "the one that is left works")
        assert leader
        cluster.kubectl("-n", namespace, "delete", "site/s", "--timeout=30s")
        assert get("configmap/s-left", ".metadata.name") == "s-left"
        eventually(lambda: not get("deployment/s", ".metadata.name"), "garbage collection")
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()
    assert "panic" not in (tmp_path / "log").read_text()
