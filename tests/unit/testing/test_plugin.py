"""The pytest fixtures, as a user's test has them."""

from __future__ import annotations

import json
import ssl
import urllib.request
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from berg.machinery.resources import resource


@pytest.mark.berg(nodes=2, controllers=False)
async def test_cluster(cluster: Any) -> None:
    assert len((await cluster.client.list(resource("nodes")))["items"]) == 2


@pytest.mark.berg(nodes=0, controllers=False)
def test_kubeconfig(kubeconfig: str, tmp_path: Path) -> None:
    config = json.loads(Path(kubeconfig).read_text())
    at, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    for name, data in (("crt", user["client-certificate-data"]), ("key", user["client-key-data"])):
        (tmp_path / name).write_bytes(b64decode(data))
    tls = ssl.create_default_context(cadata=b64decode(at["certificate-authority-data"]).decode())
    tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with urllib.request.urlopen(f"{at['server']}/version", context=tls, timeout=5) as answer:
        assert json.load(answer)["minor"] == "37"
