"""The etcd engine's decisions that need no server."""

from __future__ import annotations

import pytest

from berg.storage.etcd.client import progress_is_sound
from berg.storage.etcd.errors import TABLE, from_wire, to_wire
from berg.storage.interface import InvalidRequest, RequestTooLarge, RevisionCompacted, Unavailable


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        ("3.4.23", False),
        ("3.4.31", True),
        ("3.5.12", False),
        ("3.5.13", True),
        ("3.6.0-rc.1", True),
        ("3.7.0", True),
        ("4.0.0", True),
        ("nonsense", False),
    ],
)
def test_which_releases_progress_notices_can_be_trusted_of(version: str, sound: bool) -> None:
    assert progress_is_sound(version) is sound


def test_errors_survive_the_wire() -> None:
    for kind, _, text in TABLE:
        error = RevisionCompacted(7) if kind is RevisionCompacted else kind(text)
        code, told = to_wire(error)
        assert type(from_wire(code, told)) is kind
    assert isinstance(from_wire(*to_wire(InvalidRequest("etcdserver: key is not provided"))), InvalidRequest)
    assert isinstance(from_wire(14, "connection refused"), Unavailable)
    assert isinstance(from_wire(8, "Received message larger than max (9 vs. 8)"), RequestTooLarge)
