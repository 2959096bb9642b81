"""Store errors and what they are on etcd's wire: a gRPC status and a text. One table for both directions.

Source: etcd api/v3rpc/rpctypes/error.go.
"""

from __future__ import annotations

from berg.storage.interface import (
    Corrupt,
    DuplicateKey,
    InvalidRequest,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseTtlTooLarge,
    NoSpace,
    RequestTooLarge,
    RevisionCompacted,
    RevisionFuture,
    StoreError,
    TooManyOps,
    Unavailable,
)

# gRPC's status codes by number, so that knowing them needs no gRPC
CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 2, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE = 7, 8, 9, 11
UNIMPLEMENTED, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = 12, 14, 15, 16

TABLE: list[tuple[type[StoreError], int, str]] = [
    (RevisionCompacted, OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    (RevisionFuture, OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    (LeaseNotFound, NOT_FOUND, "etcdserver: requested lease not found"),
    (LeaseExists, FAILED_PRECONDITION, "etcdserver: lease already exists"),
    (LeaseTtlTooLarge, OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    (DuplicateKey, INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"),
    (KeyNotFound, INVALID_ARGUMENT, "etcdserver: key not found"),
    (TooManyOps, INVALID_ARGUMENT, "etcdserver: too many operations in txn request"),
    (RequestTooLarge, INVALID_ARGUMENT, "etcdserver: request is too large"),
    (NoSpace, RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
]
_INVALID = (
    "etcdserver: key is not provided",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: invalid sort option",
)
_BY_TEXT = {text: kind for kind, _, text in TABLE} | dict.fromkeys(_INVALID, InvalidRequest)


def to_wire(error: StoreError) -> tuple[int, str]:
    """(gRPC status code, text)."""
    for kind, code, text in TABLE:
        if isinstance(error, kind):
            return code, text
    if isinstance(error, InvalidRequest):
        return INVALID_ARGUMENT, str(error)
    if isinstance(error, Corrupt):
        return DATA_LOSS, "etcdserver: corrupt cluster"
    if isinstance(error, Unavailable):
        return UNAVAILABLE, "etcdserver: server stopped"
    return UNKNOWN, str(error)


def wording(error: StoreError) -> str:
    """What the error is called to somebody who does not know which engine there is."""
    return next((text for kind, _, text in TABLE if isinstance(error, kind)), str(error))


def from_wire(code: int, text: str, compact_revision: int = 0) -> StoreError:
    kind = _BY_TEXT.get(text)
    if kind is RevisionCompacted:
        return RevisionCompacted(compact_revision)
    if kind is not None:
        return kind(text)
    if code == RESOURCE_EXHAUSTED and "message larger than max" in text:
        return RequestTooLarge(text)
    return Unavailable(text)
