"""Writes that are not on disk yet: transactions are evaluated here, against the newest state there will be.

The overlay holds, per key, what the pending writes make of it; readers never look at it. A transaction sees the
visible index under the overlay, so that the next write need not wait for the last one's commit. When a commit
is on disk its changes move to the index (`settle`); when it fails, everything pending was built on it and goes
with it (`clear`).

A transaction is checked whole before anything changes, so that there is nothing to undo.

Source: etcd server/etcdserver/txn, api/v3rpc/key.go (what is checked, and the texts).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from berg.storage.embedded.index import Index, matcher, select
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResponse,
    DuplicateKey,
    InvalidRequest,
    KeyNotFound,
    KeyValue,
    LeaseNotFound,
    Op,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestTooLarge,
    Swapped,
    TooManyOps,
    TxnRequest,
    TxnResponse,
)

MAX_REQUEST_BYTES = 1536 * 1024
MAX_TXN_OPS = 128


@dataclass(slots=True)
class Result:
    """A transaction's answer, and the changes that must be durable before it may be given."""

    response: Any
    changes: list[KeyValue] = field(default_factory=list)


class Pending:
    def __init__(self, index: Index, has_lease: Callable[[int], bool]) -> None:
        self.index = index
        self.revision = index.revision
        self.overlay: dict[bytes, KeyValue] = {}
        self._has_lease = has_lease
        self.max_txn_ops = MAX_TXN_OPS
        self.max_request_bytes = MAX_REQUEST_BYTES

    def settle(self, changes: Sequence[KeyValue]) -> None:
        """`changes` are on disk and in the index."""
        overlay = self.overlay
        for kv in changes:
            if overlay.get(kv.key) is kv:
                del overlay[kv.key]

    def clear(self) -> None:
        self.overlay.clear()
        self.revision = self.index.revision

    # -- the newest state

    def get(self, key: bytes) -> KeyValue | None:
        kv = self.overlay.get(key)
        if kv is None:
            return self.index.current.get(key)
        return kv if kv.version else None

    def in_range(self, key: bytes, range_end: bytes | None) -> list[KeyValue]:
        if range_end is None:
            kv = self.get(key)
            return [] if kv is None else [kv]
        kvs = list(self.index.iter_current(key, range_end))
        matches = matcher(key, range_end)
        changed = {k: kv for k, kv in self.overlay.items() if matches(k)}
        if not changed:
            return kvs
        kvs = [kv for kv in kvs if kv.key not in changed]
        kvs += [kv for kv in changed.values() if kv.version]
        kvs.sort(key=lambda kv: kv.key)
        return kvs

    def range(self, request: RangeRequest) -> RangeResponse:
        self.index.check_revision(request.revision, self.revision)
        if 0 < request.revision <= self.index.revision:
            kvs = (
                [kv for kv in (self.index.get_at(request.key, request.revision),) if kv is not None]
                if request.range_end is None
                else list(self.index.iter_at(request.key, request.range_end, request.revision))
            )
        else:
            kvs = self.in_range(request.key, request.range_end)
        return select(request, kvs, len(kvs), self.revision)

    # -- single operations

    def put(self, request: PutRequest) -> Result:
        self.check(request)
        changes: list[KeyValue] = []
        revision = self.revision + 1
        response = self._put(request, revision, changes)
        self.revision = revision
        return Result(response, changes)

    def delete(self, request: DeleteRequest) -> Result:
        self.check(request)
        changes: list[KeyValue] = []
        response = self._delete(request, self.revision + 1, changes)
        if changes:
            self.revision += 1
        return Result(response, changes)

    def txn(self, request: TxnRequest) -> Result:
        self.check(request)
        path = self._path(request)
        self._check_path(path)
        changes: list[KeyValue] = []
        response = self._apply(path, self.revision + 1, changes)
        if changes:
            self.revision += 1
        return Result(response, changes)

    def swap(self, key: bytes, expected: int, value: bytes | None, lease: int) -> Result:
        old = self.get(key)
        if (0 if old is None else old.mod_revision) != expected:
            return Result(Swapped(False, self.revision, old))
        revision = self.revision + 1
        if value is None:
            if old is None:
                return Result(Swapped(True, self.revision, None))
            kv = KeyValue(key, b"", 0, revision, 0)
        else:
            if len(key) + len(value) > self.max_request_bytes - 64:
                raise RequestTooLarge("etcdserver: request is too large")
            if lease and not self._has_lease(lease):
                raise LeaseNotFound("etcdserver: requested lease not found")
            if old is None:
                kv = KeyValue(key, value, revision, revision, 1, lease)
            else:
                kv = KeyValue(key, value, old.create_revision, revision, old.version + 1, lease)
        self.overlay[key] = kv
        self.revision = revision
        return Result(Swapped(True, revision, old), [kv])

    def _put(self, request: PutRequest, revision: int, changes: list[KeyValue]) -> PutResponse:
        key = request.key
        old = self.get(key)
        value, lease = request.value, request.lease
        if old is not None:
            if request.ignore_value:
                value = old.value
            if request.ignore_lease:
                lease = old.lease
            kv = KeyValue(key, value, old.create_revision, revision, old.version + 1, lease)
        else:
            kv = KeyValue(key, value, revision, revision, 1, lease)
        self.overlay[key] = kv
        changes.append(kv)
        return PutResponse(revision, old if request.prev_kv else None)

    def _delete(self, request: DeleteRequest, revision: int, changes: list[KeyValue]) -> DeleteResponse:
        gone = self.in_range(request.key, request.range_end)
        for old in gone:
            kv = KeyValue(old.key, b"", 0, revision, 0)
            self.overlay[old.key] = kv
            changes.append(kv)
        return DeleteResponse(revision if changes else self.revision, len(gone), tuple(gone) if request.prev_kv else ())

    # -- transactions: compares decide the path, the path is checked, then applied

    def _path(self, request: TxnRequest) -> _Path:
        succeeded = all(self.holds(c) for c in request.compare)
        ops = request.success if succeeded else request.failure
        return _Path(succeeded, [(op, self._path(op) if isinstance(op, TxnRequest) else None) for op in ops])

    def holds(self, compare: Compare) -> bool:
        if compare.range_end is None:
            return _holds(compare, self.get(compare.key))
        kvs = self.in_range(compare.key, compare.range_end)
        if not kvs:
            # an empty range compares like a missing key, except that a value can then never be equal
            return _holds(compare, None)
        return all(_holds(compare, kv) for kv in kvs)

    def _check_path(self, path: _Path) -> None:
        for op, nested in path.ops:
            if isinstance(op, PutRequest):
                self._check_put(op)
            elif isinstance(op, RangeRequest):
                self.index.check_revision(op.revision, self.revision)
            elif nested is not None:
                self._check_path(nested)

    def _apply(self, path: _Path, revision: int, changes: list[KeyValue]) -> TxnResponse:
        responses: list[RangeResponse | PutResponse | DeleteResponse | TxnResponse] = []
        for op, nested in path.ops:
            if isinstance(op, PutRequest):
                responses.append(self._put(op, revision, changes))
            elif isinstance(op, DeleteRequest):
                responses.append(self._delete(op, revision, changes))
            elif isinstance(op, RangeRequest):
                response = self.range(op)
                if changes:
                    response = RangeResponse(revision, response.kvs, response.count, response.more)
                responses.append(response)
            elif nested is not None:
                responses.append(self._apply(nested, revision, changes))
        return TxnResponse(revision if changes else self.revision, path.succeeded, responses)

    # -- checks

    def check(self, request: PutRequest | DeleteRequest | TxnRequest) -> None:
        """Everything that can be said before the compares are known, and for a put all of it."""
        if isinstance(request, PutRequest):
            if len(request.key) + len(request.value) > self.max_request_bytes - 64:
                raise RequestTooLarge("etcdserver: request is too large")
            self._check_put_fields(request)
            self._check_put(request)
        elif isinstance(request, TxnRequest):
            if _size(request) > self.max_request_bytes:
                raise RequestTooLarge("etcdserver: request is too large")
            self._check_ops(request)
            _written(request.success)
            _written(request.failure)
        elif not request.key:
            raise InvalidRequest("etcdserver: key is not provided")

    def _check_put_fields(self, put: PutRequest) -> None:
        if not put.key:
            raise InvalidRequest("etcdserver: key is not provided")
        if put.ignore_value and put.value:
            raise InvalidRequest("etcdserver: value is provided")
        if put.ignore_lease and put.lease:
            raise InvalidRequest("etcdserver: lease is provided")

    def _check_put(self, put: PutRequest) -> None:
        if put.lease and not self._has_lease(put.lease):
            raise LeaseNotFound("etcdserver: requested lease not found")
        if (put.ignore_value or put.ignore_lease) and self.get(put.key) is None:
            raise KeyNotFound("etcdserver: key not found")

    def _check_ops(self, txn: TxnRequest) -> None:
        if max(len(txn.compare), len(txn.success), len(txn.failure)) > self.max_txn_ops:
            raise TooManyOps("etcdserver: too many operations in txn request")
        for compare in txn.compare:
            if not compare.key:
                raise InvalidRequest("etcdserver: key is not provided")
        for op in (*txn.success, *txn.failure):
            if isinstance(op, TxnRequest):
                self._check_ops(op)
            elif isinstance(op, PutRequest):
                self._check_put_fields(op)
            elif not op.key:
                raise InvalidRequest("etcdserver: key is not provided")


@dataclass(slots=True)
class _Path:
    """One transaction with its compares answered."""

    succeeded: bool
    ops: list[tuple[Op, _Path | None]]


def _holds(compare: Compare, kv: KeyValue | None) -> bool:
    target = compare.target
    actual: int | bytes
    if target is CompareTarget.VALUE:
        if kv is None:
            return False
        actual = kv.value
    elif kv is None:
        actual = 0
    elif target is CompareTarget.MOD:
        actual = kv.mod_revision
    elif target is CompareTarget.CREATE:
        actual = kv.create_revision
    elif target is CompareTarget.VERSION:
        actual = kv.version
    else:
        actual = kv.lease
    result, wanted = compare.result, compare.value
    if result is CompareResult.EQUAL:
        return actual == wanted
    if result is CompareResult.NOT_EQUAL:
        return actual != wanted
    if result is CompareResult.GREATER:
        return actual > wanted  # type: ignore[operator]
    return actual < wanted  # type: ignore[operator]


def _size(txn: TxnRequest) -> int:
    size = 0
    for op in (*txn.success, *txn.failure):
        if isinstance(op, PutRequest):
            size += len(op.key) + len(op.value) + 64
        elif isinstance(op, TxnRequest):
            size += _size(op)
    return size


def _written(ops: Sequence[Op]) -> tuple[set[bytes], list[tuple[bytes, bytes | None]]]:
    """The keys put and the ranges deleted by `ops` and whatever is nested in them. Raises DuplicateKey when a
    key is put twice, or put and deleted, on any one path; the two branches of a nested transaction exclude each
    other, so they may write the same key."""
    puts: set[bytes] = set()
    deletes: list[tuple[bytes, bytes | None]] = [(op.key, op.range_end) for op in ops if isinstance(op, DeleteRequest)]
    nested_deletes: list[tuple[bytes, bytes | None]] = []
    for op in ops:
        if isinstance(op, TxnRequest):
            then_puts, then_deletes = _written(op.success)
            else_puts, else_deletes = _written(op.failure)
            both = then_puts | else_puts
            if both & puts:
                raise DuplicateKey(_DUPLICATE)
            _refuse_overlap(puts, then_deletes + else_deletes)
            _refuse_overlap(both, nested_deletes)
            puts |= both
            nested_deletes += then_deletes + else_deletes
        elif isinstance(op, PutRequest):
            if op.key in puts:
                raise DuplicateKey(_DUPLICATE)
            _refuse_overlap({op.key}, nested_deletes)
            puts.add(op.key)
    _refuse_overlap(puts, deletes)
    return puts, deletes + nested_deletes


_DUPLICATE = "etcdserver: duplicate key given in txn request"


def _refuse_overlap(puts: set[bytes], deletes: Sequence[tuple[bytes, bytes | None]]) -> None:
    for key, range_end in deletes:
        if range_end is None:
            if key in puts:
                raise DuplicateKey(_DUPLICATE)
        elif range_end != b"\0":  # etcd takes "from this key on" for a range that ends before it begins, and lets it by
            matches = matcher(key, range_end)
            if any(matches(put) for put in puts):
                raise DuplicateKey(_DUPLICATE)
