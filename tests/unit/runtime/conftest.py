"""What the machine tests of the runtime share: an image made from busybox, and a runtime of their own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berg.runtime.own.config import OwnConfig

from .harness import Harness

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE = "example.org/busybox:test"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("crun", "nft") if shutil.which(name) is None]
    reason = "needs root" if os.geteuid() else f"needs {', '.join(missing)}" if missing else ""
    for item in items:
        if reason and item.get_closest_marker("root") and "unit/runtime" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(REPOSITORY / "tools"))
    try:
        import build_images
    finally:
        sys.path.pop(0)
    return build_images.build("busybox", IMAGE, tmp_path_factory.mktemp("images"))


@pytest.fixture
async def harness(tmp_path: Path, busybox: Path) -> AsyncIterator[Harness]:
    """A runtime without a network; whatever the test leaves is removed, and it is checked that nothing stays."""
    harness = Harness(
        OwnConfig(str(tmp_path / "root"), str(tmp_path / "state"), default_cgroup_parent=f"/{tmp_path.name}")
    )
    await harness.start()
    await harness.runtime.images.import_archive(str(busybox))
    yield harness
    await harness.remove_all()
    await harness.stop()
