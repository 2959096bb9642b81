"""The engines that the store's contract is held against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import Store

ENGINES = ["memory", "file"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(engine: str, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = EmbeddedStore(None if engine == "memory" else tmp_path / "store.db")
    await opened.start()
    yield opened
    await opened.close()
