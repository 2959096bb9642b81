"""Granting, revoking and expiring leases: what `leases` keeps account of, made durable.

Revoking deletes the lease's keys in the same commit. Keys are those it has now, pending writes included: a write
may have joined or left it since the last commit.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from berg.storage.embedded.leases import MAX_TTL_S, MIN_TTL_S, Held
from berg.storage.embedded.records import Grant, Revoke, tombstone
from berg.storage.interface import KeyValue, Lease, LeaseExists, LeaseNotFound, LeaseTtlTooLarge, StoreError

if TYPE_CHECKING:
    from berg.storage.embedded.engine import EmbeddedStore


class Leasing:
    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._changed = asyncio.Event()

    async def grant(self, ttl_s: int, lease_id: int) -> Lease:
        held = self._store.held
        if ttl_s > MAX_TTL_S:
            raise LeaseTtlTooLarge("etcdserver: too large lease TTL")
        ttl_s = max(ttl_s, MIN_TTL_S)
        if not lease_id:
            while not lease_id or held.has(lease_id):
                lease_id = secrets.randbits(63)
        elif held.has(lease_id):
            raise LeaseExists("etcdserver: lease already exists")

        def effect() -> None:
            held.grant(lease_id, ttl_s)
            self._changed.set()

        await self._store.write([Grant(lease_id, ttl_s)], effect)
        return Lease(lease_id, ttl_s, ttl_s)

    def find(self, lease_id: int) -> Held:
        held = self._store.held.find(lease_id)
        if held is None:
            raise LeaseNotFound("etcdserver: requested lease not found")
        return held

    def time_to_live(self, lease_id: int, keys: bool) -> Lease:
        held = self._store.held.find(lease_id)
        if held is None:
            return Lease(lease_id, 0, -1)
        remaining_s = held.remaining_s(self._store.clock.monotonic())
        return Lease(lease_id, held.ttl_s, remaining_s, tuple(sorted(held.keys)) if keys else ())

    async def revoke(self, held: Held) -> None:
        store, pending = self._store, self._store.pending
        held.revoking = True
        keys = held.keys | {k for k, kv in pending.overlay.items() if kv.lease == held.id}
        gone = [k for k in sorted(keys) if (kv := pending.get(k)) is not None and kv.lease == held.id]
        changes: list[KeyValue] = []
        if gone:
            pending.revision += 1
            changes = [tombstone(key, pending.revision) for key in gone]
            pending.overlay.update((kv.key, kv) for kv in changes)
        try:
            await store.write([Revoke(held.id)], lambda: store.held.forget(held.id), changes)
        except StoreError:
            held.revoking = False
            raise

    async def run(self) -> None:
        """Revokes leases as they run out, for ever."""
        store, leases = self._store, self._store.held
        while True:
            deadline = leases.next_deadline()
            if deadline is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            # a lease granted meanwhile lasts at least the shortest time there is, so that is how long to sleep
            await store.clock.sleep(min(max(deadline - store.clock.monotonic(), 0.0), MIN_TTL_S))
            for held in leases.expired():
                try:
                    await self.revoke(held)
                except StoreError:
                    leases.postpone(held)
