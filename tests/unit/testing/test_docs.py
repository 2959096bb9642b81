"""The examples of docs/testing.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from berg.testing import Cluster

TEXT = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def names(block: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Cluster": Cluster, "pytest": pytest}
    exec(compile(block, "docs/testing.md", "exec"), found)
    return found


async def test_the_first_example() -> None:
    await names(BLOCKS[0])["test_web"]()


async def test_the_plugin_example() -> None:
    found = names(BLOCKS[2])
    async with Cluster(nodes=2, scheduler=found["config"], controllers=False, https=False) as cluster:
        from berg.machinery.resources import resource

        spec = {"containers": [{"name": "c", "image": "i"}]}
        await cluster.client.create(resource("pods"), {"metadata": {"name": "p"}, "spec": spec}, "default")
        pod = await cluster.until("pods", "p", lambda p: p["status"].get("phase") == "Running")
        assert pod["spec"]["nodeName"] == "sim-1"
    await found["test_it"]()


def test_the_mark_is_known() -> None:
    assert "test_operator" in names(BLOCKS[1])
