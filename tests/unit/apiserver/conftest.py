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
async def served() -> AsyncIterator[Served]:
    clock = FakeClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    server = APIServer(Config(secure_port=-1, store=store, clock=clock, advertise_address="10.0.0.5"))
    await server.start()
    yield Served(server, clock)
    await server.stop()
    await store.close()
