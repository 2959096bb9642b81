"""The store's contract: etcd v3's data model, whatever the engine.

Keys and values are bytes. Every change has a revision, one per transaction, rising by one; a key remembers the
revision that made it, the one that last changed it and how often it changed. A watch delivers every event after
a revision exactly once and in order, until that revision is compacted.

An engine acknowledges a write only when it is durable, and never shows a reader what is not.
`tests/conformance/test_store.py` is this contract as tests; every engine runs it.

Source: etcd api/etcdserverpb/rpc.proto, api/mvccpb/kv.proto.

    StoreError
     ├── RevisionCompacted     asked for history that is gone
     ├── RevisionFuture        asked for a revision that has not happened
     ├── LeaseNotFound / LeaseExists
     ├── DuplicateKey          one transaction writes a key twice
     ├── KeyNotFound           a put that keeps the value or lease of a key that is not there
     ├── InvalidRequest        a request that contradicts itself, or without a key
     ├── RequestTooLarge / NoSpace / TooManyOps / LeaseTtlTooLarge
     ├── Corrupt               what is on disk is damaged, or lacks acknowledged writes; says where and what to do
     └── Unavailable           the engine cannot answer now (closed, disk failed, no etcd member reached)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable


class StoreError(Exception):
    pass


class RevisionCompacted(StoreError):
    """Every revision after `compact_revision` can be watched; the state at it can still be read."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__("mvcc: required revision has been compacted")
        self.compact_revision = compact_revision


class RevisionFuture(StoreError):
    pass


class LeaseNotFound(StoreError):
    pass


class LeaseExists(StoreError):
    pass


class DuplicateKey(StoreError):
    pass


class KeyNotFound(StoreError):
    pass


class InvalidRequest(StoreError):
    pass


class LeaseTtlTooLarge(StoreError):
    pass


class Corrupt(StoreError):
    pass


class RequestTooLarge(StoreError):
    pass


class TooManyOps(StoreError):
    pass


class NoSpace(StoreError):
    pass


class Unavailable(StoreError):
    pass


class KeyValue(NamedTuple):
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class EventType(IntEnum):
    PUT = 0
    DELETE = 1


class Event(NamedTuple):
    """For DELETE, `kv` has the key and the revision of the deletion, and no value."""

    type: EventType
    kv: KeyValue
    prev_kv: KeyValue | None = None


class CompareTarget(IntEnum):
    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class CompareResult(IntEnum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(NamedTuple):
    key: bytes
    target: CompareTarget
    result: CompareResult
    value: int | bytes
    range_end: bytes | None = None


class SortTarget(IntEnum):
    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class SortOrder(IntEnum):
    NONE = 0
    ASCEND = 1
    DESCEND = 2


class RangeRequest(NamedTuple):
    """`range_end` None: one key; b"\\0": all keys from `key` on; else [key, range_end)."""

    key: bytes
    range_end: bytes | None = None
    limit: int = 0
    revision: int = 0
    sort_order: SortOrder = SortOrder.NONE
    sort_target: SortTarget = SortTarget.KEY
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class RangeResponse(NamedTuple):
    """`revision` is the store's at the time of the answer; `count` is of all keys in the range."""

    revision: int
    kvs: Sequence[KeyValue]
    count: int  # type: ignore[assignment]  # tuple's method of that name is not missed
    more: bool = False


class PutRequest(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class PutResponse(NamedTuple):
    revision: int
    prev_kv: KeyValue | None = None


class DeleteRequest(NamedTuple):
    key: bytes
    range_end: bytes | None = None
    prev_kv: bool = False


class DeleteResponse(NamedTuple):
    revision: int
    deleted: int
    prev_kvs: Sequence[KeyValue] = ()


class TxnRequest(NamedTuple):
    compare: Sequence[Compare] = ()
    success: Sequence[Op] = ()
    failure: Sequence[Op] = ()


class TxnResponse(NamedTuple):
    revision: int
    succeeded: bool
    responses: Sequence[RangeResponse | PutResponse | DeleteResponse | TxnResponse] = ()


Op = RangeRequest | PutRequest | DeleteRequest | TxnRequest


class WatchRequest(NamedTuple):
    """`start_revision` 0: from now. `progress_notify`: say where the watch stands when nothing happens."""

    key: bytes
    range_end: bytes | None = None
    start_revision: int = 0
    prev_kv: bool = False
    progress_notify: bool = False
    no_put: bool = False
    no_delete: bool = False


class WatchBatch(NamedTuple):
    """Events of one or several whole revisions, in order; none for a progress notice at `revision`."""

    revision: int
    events: Sequence[Event] = ()


class Watch(Protocol):
    """An async iterator. Raises RevisionCompacted at the first step when its start is gone."""

    def __aiter__(self) -> Watch: ...

    async def __anext__(self) -> WatchBatch: ...

    async def request_progress(self) -> None:
        """Asks for a notice of where the watch stands. There is none while events are on their way: a notice must not
        overtake what it covers, so who was not told asks again."""
        ...

    async def aclose(self) -> None:
        """Ends the watch, and its reader with it."""
        ...


class Lease(NamedTuple):
    id: int
    ttl_s: int
    """as granted"""
    remaining_s: int
    """-1 when it is gone"""
    keys: Sequence[bytes] = ()


class Store(Protocol):
    """All methods may raise Unavailable; the rest of the errors as named."""

    @property
    def revision(self) -> int:
        """The newest revision a reader may see."""
        ...

    @property
    def compact_revision(self) -> int: ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Ends every watch and finishes the writes that are under way."""
        ...

    async def range(self, request: RangeRequest) -> RangeResponse:
        """Raises RevisionCompacted, RevisionFuture."""
        ...

    async def put(self, request: PutRequest) -> PutResponse:
        """Raises LeaseNotFound, RequestTooLarge, NoSpace."""
        ...

    async def delete(self, request: DeleteRequest) -> DeleteResponse: ...

    async def txn(self, request: TxnRequest) -> TxnResponse:
        """Raises DuplicateKey, TooManyOps, LeaseNotFound, RequestTooLarge, NoSpace."""
        ...

    def watch(self, request: WatchRequest) -> Watch: ...

    async def compact(self, revision: int) -> None:
        """Raises RevisionCompacted, RevisionFuture."""
        ...

    async def lease_grant(self, ttl_s: int, lease_id: int = 0) -> Lease:
        """Raises LeaseExists."""
        ...

    async def lease_revoke(self, lease_id: int) -> int:
        """Deletes the lease's keys; returns the revision. Raises LeaseNotFound."""
        ...

    async def lease_keepalive(self, lease_id: int) -> int:
        """Returns the TTL in seconds. Raises LeaseNotFound."""
        ...

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> Lease: ...

    async def leases(self) -> Sequence[int]: ...

    async def hash(self, revision: int = 0) -> tuple[int, int]:
        """(hash, the revision it is of)."""
        ...

    async def defragment(self) -> None: ...


Listener = Callable[[int, Sequence[Event]], None]
"""Told of each commit, as it becomes visible: the newest revision, and its events in order."""


class Swapped(NamedTuple):
    done: bool
    revision: int
    """of the change; the store's when there was none"""
    before: KeyValue | None
    """the key as it was"""


@runtime_checkable
class Synchronous(Protocol):
    """A store in this process: what it publishes reaches its listeners before the writers hear that it is done,
    so that a cache fed by it is never behind an acknowledged write."""

    async def swap(self, key: bytes, expected: int, value: bytes | None, lease: int = 0) -> Swapped:
        """What a cache's every write is, without the ceremony of a transaction: puts `value`, or deletes the key with
        None, if the key's mod revision is `expected` (0: it is not there). Raises as `txn`."""
        ...

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` runs on the loop, must not raise and must not block. Returns what ends it."""
        ...

    def events_from(self, revision: int) -> Sequence[Event]:
        """All kept events at or after `revision`. Raises RevisionCompacted."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that start with `prefix`."""
    end = bytearray(prefix)
    while end:
        if end[-1] < 0xFF:
            end[-1] += 1
            return bytes(end)
        end.pop()
    return b"\0"
