"""What a cluster's start must not load. No time is measured: a module that is back in here is what costs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ELSEWHERE = {
    "aiohttp", "cbor2", "dnslib", "google.protobuf", "grpc", "jwt", "opentelemetry", "prometheus_client",
    "pyroute2", "re2", "rich", "uvloop", "wsproto", "yaml",
}  # fmt: skip
"""libraries that some part of a cluster needs, but not one that only starts"""

FIRST_USE = {
    "berg.apiserver.admission.policy", "berg.apiserver.admission.quota", "berg.apiserver.admission.webhook",
    "berg.apiserver.aggregation.availability", "berg.apiserver.audit", "berg.apiserver.crd.rules",
    "berg.apiserver.crd.schema_rules", "berg.apiserver.crd.strategy", "berg.apiserver.http.forward",
    "berg.apiserver.openapi.operations", "berg.apiserver.registry.apply", "berg.machinery.cel",
}  # fmt: skip
"""rooms of the API server that are entered when somebody asks for what they do"""

SCHEDULER = {"numpy", "berg.scheduler"}

START = """
import asyncio, json, sys
from berg.testing import Cluster
async def main():
    async with Cluster():
        print(json.dumps(sorted(sys.modules)))
asyncio.run(main())
"""

API_PROCESS = """
import json, sys
import berg.cli.role, berg.apiserver.server
print(json.dumps(sorted(sys.modules)))
"""


def _loaded(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def _of(modules: set[str], names: set[str]) -> list[str]:
    return sorted(n for n in names if any(m == n or m.startswith(f"{n}.") for m in modules))


@pytest.mark.parametrize(
    ("program", "unwanted"), [(START, ELSEWHERE | FIRST_USE | SCHEDULER), (API_PROCESS, SCHEDULER)]
)
def test_start_up_loads_only_what_it_needs(program: str, unwanted: set[str]) -> None:
    assert _of(_loaded(program), unwanted) == []
