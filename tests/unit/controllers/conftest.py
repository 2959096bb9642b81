"""The fixture `world`: see controllers_world.py."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "client")]

from controllers_world import World  # noqa: E402


@pytest.fixture
async def world(caplog: pytest.LogCaptureFixture):
    w = World()
    yield w
    if w.manager is not None:
        await w.manager.stop()
    assert not [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR], "a controller failed"
