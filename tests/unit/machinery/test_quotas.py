"""What objects use of a quota, and whether a quota's scopes hold them."""

from __future__ import annotations

from typing import Any

import pytest

from berg.machinery.quotas import in_scope


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"volumeAttributesClassName": "gold"}, {}, True),
        ({"volumeAttributesClassName": "tin"}, {}, False),
        ({"volumeAttributesClassName": "tin"}, {"currentVolumeAttributesClassName": "gold"}, True),
        (
            {"volumeAttributesClassName": "tin"},
            {"modifyVolumeStatus": {"targetVolumeAttributesClassName": "gold"}},
            True,
        ),
        ({}, {}, False),
    ],
)
def test_a_claim_is_of_every_class_it_has_or_wants(
    spec: dict[str, Any], status: dict[str, Any], expected: bool
) -> None:
    selector = {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}
    assert in_scope("persistentvolumeclaims", selector, {"spec": spec, "status": status}) is expected
