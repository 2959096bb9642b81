"""No two clusters of one machine have the same number, wherever they are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from berg.lifecycle import registry
from berg.lifecycle.spec import ClusterSpec


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "machine_root", lambda: tmp_path / "machine")
    monkeypatch.setenv("BERG_HOME", str(tmp_path / "home"))
    return tmp_path


def cluster(root: Path) -> int:
    index = registry.take_index(root)
    ClusterSpec(
        name=root.name, index=index, api_port=6443, advertise_address="192.0.2.1", runtime="sim", sim_nodes=1
    ).write(root / "spec.json")
    return index


def test_clusters_under_different_roots_get_different_numbers(machine: Path) -> None:
    first = cluster(machine / "a" / "one")
    second = cluster(machine / "b" / "one")
    assert first != second
    assert registry.take_index(machine / "a" / "one") == first, "who asks again, asks for the same cluster"


def test_a_number_is_held_before_the_spec_is_written(machine: Path) -> None:
    assert registry.take_index(machine / "a") != registry.take_index(machine / "b")


def test_a_number_is_free_again_when_its_cluster_is_gone(machine: Path) -> None:
    first = cluster(machine / "a")
    shutil.rmtree(machine / "a")
    assert registry.take_index(machine / "b") == first
    registry.return_index(machine / "a", first)
    assert registry.take_index(machine / "c") != first, "only who holds a number returns it"


def test_a_cluster_that_was_there_before_the_numbers_keeps_its_own(machine: Path) -> None:
    first = cluster(machine / "a")
    shutil.rmtree(machine / "machine")
    registry.keep_index(machine / "a", first)
    assert cluster(machine / "b") != first
