"""A machine with nothing but loopback: a network namespace of the test's own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from berg.cli.kubectl import find

pytestmark = [pytest.mark.root, pytest.mark.judge]

STORY = """
set -e
ip link set lo up
{berg} up --name offline --wait 60
{berg} image import --name offline {archive}
{kubectl} create deployment web --image=registry.k8s.io/e2e-test-images/nginx:1.0
{kubectl} rollout status deployment/web --timeout=60s
{kubectl} expose deployment web --port=80
{kubectl} exec deployment/web -- wget -qO- http://web.default.svc.cluster.local
{berg} down --name offline --purge
ip -o link | wc -l
"""


def test_a_cluster_without_a_network(tmp_path: Path, images: Path) -> None:
    environment = {**os.environ, "BERG_HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "kubeconfig")}
    story = STORY.format(
        berg=f"{shlex.quote(sys.executable)} -m berg.cli.main",
        kubectl=find("kubectl"),
        archive=next(images.glob("*nginx*")),
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", story],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Welcome to nginx" in done.stdout
    assert done.stdout.split()[-1] == "1", "only loopback is left"
