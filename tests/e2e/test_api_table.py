"""Every path and verb of the published OpenAPI document, called on a real cluster (tools/api_table.py)."""

from __future__ import annotations

import sys

from tests.e2e.conftest import ROOT, Cluster, run


def test_every_path_and_verb(cluster: Cluster) -> None:
    command = [sys.executable, str(ROOT / "tools" / "api_table.py"), str(cluster.kubeconfig)]
    done = run(command, cluster.environment, True, 120)
    assert "✗" not in done.stdout and "never called" not in done.stdout, done.stdout
    assert " 0 answers were not" in done.stdout
