"""Devices that claims ask for."""

from __future__ import annotations

import pytest

from berg.machinery.deviceclaims import devices


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([], {}),
        ([{"exactly": {"deviceClassName": "gold"}}], {"gold": 1}),
        ([{"exactly": {"deviceClassName": "gold", "count": 3}}] * 2, {"gold": 6}),
        ([{"exactly": {"deviceClassName": "gold", "allocationMode": "All"}}], {"gold": 32}),
        (
            [
                {
                    "firstAvailable": [
                        {"deviceClassName": "gold", "count": 2},
                        {"deviceClassName": "gold", "count": 5},
                        {"deviceClassName": "tin", "count": 1},
                    ]
                }
            ],
            {"gold": 5, "tin": 1},
        ),
    ],
)
def test_devices(requests: list[dict[str, object]], expected: dict[str, int]) -> None:
    assert devices({"spec": {"devices": {"requests": requests}}}) == expected
