"""The official JavaScript client against a real cluster; the program is `node/client.mjs`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Cluster, run

pytestmark = pytest.mark.judge

MODULES = ROOT / ".venv" / "node"
"""where tools/test_setup.py puts the package"""


def test_client_node(cluster: Cluster, namespace: str) -> None:
    node = shutil.which("node") or shutil.which("nodejs")
    if not node or not (MODULES / "node_modules").exists():
        pytest.skip("needs node and @kubernetes/client-node (tools/test_setup.py)")
    program = Path(__file__).parent / "node" / "client.mjs"
    done = run([node, str(program), str(MODULES), namespace], cluster.environment, True, 90)
    assert done.stdout.strip().endswith("all of it")
