"""Every scenario file is a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from runner import Scenario, read  # noqa: E402

FILES = sorted(HERE.glob("*/*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
async def test_scenario(path: Path) -> None:
    steps = read(path)
    scenario = Scenario()
    try:
        printed = await scenario.run(steps)
    finally:
        await scenario.stop()
    if os.environ.get("BERG_WRITE_SCENARIOS"):
        printed += [s.expected for s in steps[len(printed) :]]
        texts = [s.text(p) if s.command else "\n".join(s.comments) + "\n" for s, p in zip(steps, printed, strict=True)]
        path.write_text("\n".join(texts))
        return
    for step, got in zip(steps, printed, strict=False):
        assert got == step.expected, f"after: {step.command}"
    assert len(printed) == len(steps)
