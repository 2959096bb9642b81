from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from tests.unit.apiserver.served_api import Served


@pytest.fixture
def feature_gates() -> dict[str, bool]:
    """What differs from the defaults; a module that needs other gates has its own."""
    return {}


@pytest.fixture
async def served(feature_gates: dict[str, bool]) -> AsyncIterator[Served]:
    clock = FakeClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    config = Config(secure_port=-1, store=store, clock=clock, advertise_address="10.0.0.5", feature_gates=feature_gates)
    server = APIServer(config)
    await server.start()
    yield Served(server, clock)
    await server.stop()
    await store.close()
