"""schemathesis against the published OpenAPI document: whatever it makes up, no answer is a server error, none fails to
come, and none is no HTTP."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path

import pytest
import yaml

from berg.testing.cluster import Cluster

pytestmark = pytest.mark.judge

PATHS = "/namespaces/.namespace./(configmaps|deployments)(/.name.)?$"
HOOKS = """
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    case.query = {**(case.query or {}), "timeoutSeconds": "1"}  # a watch ends
"""


async def test_no_server_error(tmp_path: Path) -> None:
    async with Cluster(nodes=0, controllers=False, scheduler=False) as cluster:
        user = yaml.safe_load(Path(cluster.kubeconfig_path).read_text())["users"][0]["user"]
        for name in ("client-certificate", "client-key"):
            (tmp_path / name).write_bytes(base64.b64decode(user[f"{name}-data"]))
        (tmp_path / "hooks.py").write_text(HOOKS)
        document = await cluster.client.request("GET", "/openapi/v2")
        (tmp_path / "document.json").write_bytes(document)
        options = [
            "--request-cert", "client-certificate", "--request-cert-key", "client-key", "--tls-verify", "false",
            "--checks", "not_a_server_error", "--request-timeout", "30", "--phases", "fuzzing", "--max-examples", "1",
            "--seed", "1", "--no-shrink", "--continue-on-failure", "--warnings", "off",
            "--suppress-health-check", "all", "--include-path-regex", PATHS,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("st")), "run", "document.json", "--url", cluster.url, *options,
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == 0, said.decode()[-4000:]
        assert b" generated, " in said
