"""After `berg down` the machine is as it was. Last by name: it ends a cluster of its own, made and filled here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Cluster

pytestmark = [pytest.mark.root, pytest.mark.judge]

BOX = "registry.k8s.io/e2e-test-images/busybox:1.0"


def traces(directory: Path) -> dict[str, set[str]]:
    """All that the cluster in `directory` may leave in the kernel or the process table."""

    def lines(*command: str) -> set[str]:
        return set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())

    def groups(pattern: str) -> set[str]:
        return {str(p) for p in Path("/sys/fs/cgroup").glob(pattern) if p.is_dir()}

    return {
        "processes": {line for line in lines("ps", "-ewwo", "pid=,args=") if str(directory) in line},
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "links": {line.split(": ")[1].partition("@")[0] for line in lines("ip", "-o", "link")},
        "namespaces": {p.name for p in Path("/run/netns").glob("*")} | {p.name for p in Path("/run/berg").glob("*")},
        "rules": lines("nft", "list", "tables"),
        # A bridge that lost its last pod says linkdown: another cluster's, and no new route.
        "routes": {line.replace("linkdown", "").strip() for line in lines("ip", "route")},
        "addresses": lines("ip", "-o", "address", "show", "dev", "lo"),
        "cgroups": groups(f"berg-{directory.name}*") | groups(f"*/berg-{directory.name}*"),
    }


@pytest.fixture
def second(tmp_path: Path, images: Path) -> Iterator[Cluster]:
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "BERG_HOME": str(tmp_path)}
    made = Cluster("second", tmp_path / "second", tmp_path / "kubeconfig", environment)
    yield made
    made.berg("down", "--name", "second", "--purge", check=False)


def test_nothing_is_left(second: Cluster, images: Path) -> None:
    before = traces(second.directory)
    second.berg("up", "--name", "second", "--runtime", "berg", "--wait", "120", timeout=180)
    second.berg("image", "import", "--name", "second", str(next(images.glob("*busybox*"))))
    second.kubectl("create", "deployment", "web", f"--image={BOX}", "--replicas=2", "--", "sleep", "3600")
    second.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    second.kubectl("expose", "deployment", "web", "--port=80")
    during = traces(second.directory)
    for kind in ("processes", "mounts", "links", "namespaces", "rules", "cgroups"):
        assert during[kind] - before[kind], f"the test sees {kind}"

    second.berg("down", "--name", "second")

    after = traces(second.directory)
    assert {k: after[k] - before[k] for k in after if after[k] - before[k]} == {}
    assert (second.directory / "store").exists(), "data stay"

    second.berg("up", "--name", "second", "--wait", "120", timeout=180)
    second.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    second.berg("down", "--name", "second", "--purge")
    assert not second.directory.exists()
    assert "berg-second" not in second.kubeconfig.read_text()
