"""Compaction of a cluster that several API servers share: each interval one of them does it.

All of them try to write the same key, each expecting the version it saw last; who succeeds compacts to the
revision of one interval ago, the others learn of it. This is upstream's key and upstream's dance, so Berg's and
upstream's API servers can share a cluster.

Source: k8s.io/apiserver pkg/storage/etcd3/compact.go.
"""

from __future__ import annotations

from berg.machinery.clock import Clock
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RevisionCompacted,
    Store,
    StoreError,
    TxnRequest,
)

KEY = b"compact_rev_key"


class Compactor:
    def __init__(self, store: Store, clock: Clock, interval_s: float) -> None:
        self._store = store
        self._clock = clock
        self._interval_s = interval_s
        self._version = 0
        self._revision = 0

    async def run(self) -> None:
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                await self.step()
            except StoreError:
                pass  # the cluster cannot be reached: the next interval tries again

    async def step(self) -> bool:
        """One interval's attempt; whether this one compacted."""
        version, target = self._version, self._revision
        answer = await self._store.txn(
            TxnRequest(
                (Compare(KEY, CompareTarget.VERSION, CompareResult.EQUAL, version),),
                (PutRequest(KEY, b"%d" % target),),
                (RangeRequest(KEY),),
            )
        )
        self._revision = answer.revision
        if not answer.succeeded:
            found = answer.responses[0]
            if isinstance(found, RangeResponse) and found.kvs:
                self._version = found.kvs[0].version
            return False
        self._version = version + 1
        if not target:
            return False  # the first one to come does not know a revision of an interval ago
        try:
            await self._store.compact(target)
        except RevisionCompacted:
            return False
        return True
