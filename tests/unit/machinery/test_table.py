from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from berg.machinery import table
from berg.machinery.status import Obj


@dataclass(frozen=True)
class Column:
    name: str
    value: Callable[[Obj], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


COLUMNS = [Column("Name", lambda o: o["metadata"]["name"], format="name"), Column("N", lambda o: o.get("n"), "integer")]
OBJ = {"kind": "X", "metadata": {"name": "a"}, "n": 3}


def test_table() -> None:
    made = table.table(COLUMNS, [OBJ], metadata={"resourceVersion": "7"})
    assert made == {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "7"},
        "columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "N", "type": "integer", "format": "", "description": "", "priority": 0},
        ],
        "rows": [
            {
                "cells": ["a", 3],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"name": "a"},
                },
            }
        ],
    }
    assert table.row(COLUMNS, OBJ, include="Object")["object"] is OBJ
    assert "object" not in table.row(COLUMNS, OBJ, include="None")
    done = table.row(COLUMNS, OBJ, conditions=lambda o: [{"type": "Completed"}])
    assert done["conditions"] == [{"type": "Completed"}]
    assert table.table(COLUMNS, [], headers=False)["columnDefinitions"] is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (27_000, "7h30m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (252_288_000, "8y"),
    ],
)
def test_human_duration(seconds: int, shown: str) -> None:
    assert table.human_duration(seconds) == shown


def test_age() -> None:
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert table.age("2026-01-01T00:00:00Z", now) == "60s"
    assert table.age(None, now) == "<unknown>"
