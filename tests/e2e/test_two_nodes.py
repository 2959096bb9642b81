"""Two nodes on one machine: pods and services of each are reached from each."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.judge]

WEB = "registry.k8s.io/e2e-test-images/nginx:1.0"


@pytest.fixture
def pair(tmp_path: Path, images: Path) -> Iterator[Cluster]:
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "BERG_HOME": str(tmp_path)}
    made = Cluster("pair", tmp_path / "pair", tmp_path / "kubeconfig", environment)
    try:
        made.berg("up", "--name", "pair", "--nodes", "2", "--wait", "120", timeout=180)
        made.berg("image", "import", "--name", "pair", str(next(images.glob("*nginx*"))))
        yield made
    finally:
        made.berg("down", "--name", "pair", "--purge", check=False)


def test_every_way_between_two_nodes(pair: Cluster) -> None:
    nodes = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in pair.get("nodes")["items"]}
    assert len(nodes) == 2
    for i, node in enumerate(nodes):
        for what in ("web", "client"):
            pod: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{what}-{i}", "labels": {"app": f"{what}-{i}"}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": WEB}]},
            }
            pair.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        pair.kubectl("expose", "pod", f"web-{i}", "--port=80", "--type=NodePort")
    pair.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
    ports = [pair.get("service", f"web-{i}")["spec"]["ports"][0]["nodePort"] for i in range(2)]
    pages = [f"http://web-{i}.default.svc.cluster.local" for i in range(2)]
    pages += [f"http://{address}:{port}" for address, port in itertools.product(nodes.values(), ports)]
    for client, page in itertools.product(("client-0", "client-1"), pages):
        answer = eventually(
            lambda c=client, p=page: pair.kubectl("exec", c, "--", "wget", "-qO-", p, check=False, timeout=15).stdout,  # type: ignore[misc]
            f"{client} reads {page}",
            20,
        )
        assert "Welcome to nginx" in answer
