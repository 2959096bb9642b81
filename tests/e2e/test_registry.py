"""A private registry: pods pull with an imagePullSecret, and not without. The registry is Debian's, on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runtime.registry_push import push
from tests.unit.runtime.test_registry import USER, Registry, private

from .conftest import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.judge]
__all__ = ["private"]


def test_pull_secrets(cluster: Cluster, namespace: str, private: Registry, images: Path) -> None:
    push(next(images.glob("*busybox*")), "127.0.0.1", private.port, "team/box", "v1", USER)
    image = f"{private.host}/team/box:v1"
    k = ("-n", namespace)
    cluster.kubectl(*k, "run", "stranger", f"--image={image}", "--restart=Never", "--", "echo", "in")

    def reason() -> str:
        [status] = cluster.get(*k, "pod", "stranger")["status"].get("containerStatuses") or [{}]
        return str(status.get("state", {}).get("waiting", {}).get("reason", ""))

    eventually(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "a pull without credentials fails")
    cluster.kubectl(
        *k, "create", "secret", "docker-registry", "key", f"--docker-server={private.host}",
        f"--docker-username={USER[0]}", f"--docker-password={USER[1]}",
    )  # fmt: skip
    secrets = '{"spec": {"imagePullSecrets": [{"name": "key"}]}}'
    cluster.kubectl(
        *k, "run", "friend", f"--image={image}", "--restart=Never", f"--overrides={secrets}", "--", "echo", "in"
    )
    cluster.kubectl(*k, "wait", "pod/friend", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert cluster.out(*k, "logs", "friend") == "in"
    assert "Successfully pulled image" in cluster.out(*k, "events", "--for", "pod/friend")
