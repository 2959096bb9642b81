"""Leases: which keys go when their holder stops renewing.

Granting and revoking go through the log; renewing does not, so after a restart a lease has its whole time
again, as in etcd. Times are of the injected clock's monotonic side.

Source: etcd server/lease/lessor.go.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from berg.machinery.clock import Clock
from berg.storage.interface import KeyValue

MIN_TTL_S = 2
"""etcd's, with its default election timeout"""
MAX_TTL_S = 9_000_000_000


@dataclass(slots=True)
class Held:
    id: int
    ttl_s: int
    deadline: float
    keys: set[bytes] = field(default_factory=set)
    revoking: bool = False

    def remaining_s(self, now: float) -> int:
        return max(0, int(self.deadline - now))


class Leases:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[int, Held] = {}
        self._deadlines: list[tuple[float, int]] = []
        """a heap; an entry whose lease has been renewed since is put back when it comes up"""

    def __len__(self) -> int:
        return len(self._held)

    def ids(self) -> list[int]:
        return sorted(self._held)

    def find(self, lease_id: int) -> Held | None:
        """The lease, if it can still be used."""
        held = self._held.get(lease_id)
        return None if held is None or held.revoking else held

    def has(self, lease_id: int) -> bool:
        return self.find(lease_id) is not None

    def ttls(self) -> dict[int, int]:
        return {held.id: held.ttl_s for held in self._held.values()}

    def grant(self, lease_id: int, ttl_s: int) -> Held:
        held = Held(lease_id, ttl_s, self._clock.monotonic() + ttl_s)
        self._held[lease_id] = held
        heapq.heappush(self._deadlines, (held.deadline, lease_id))
        return held

    def renew(self, held: Held) -> None:
        held.deadline = self._clock.monotonic() + held.ttl_s

    def forget(self, lease_id: int) -> None:
        self._held.pop(lease_id, None)

    def attach(self, kv: KeyValue, old: KeyValue | None) -> None:
        """`kv` has become visible in place of `old`."""
        if old is not None and old.lease and old.lease != kv.lease:
            held = self._held.get(old.lease)
            if held is not None:
                held.keys.discard(kv.key)
        if kv.lease:
            held = self._held.get(kv.lease)
            if held is not None:
                held.keys.add(kv.key)

    def next_deadline(self) -> float | None:
        """When the soonest lease runs out, as far as is known now."""
        while self._deadlines:
            deadline, lease_id = self._deadlines[0]
            held = self._held.get(lease_id)
            if held is not None and not held.revoking and held.deadline <= deadline:
                return deadline
            heapq.heappop(self._deadlines)
            if held is not None and not held.revoking:
                heapq.heappush(self._deadlines, (held.deadline, lease_id))
        return None

    def expired(self) -> list[Held]:
        """The leases that have run out, and that nobody is revoking yet."""
        now = self._clock.monotonic()
        out: list[Held] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, lease_id = heapq.heappop(self._deadlines)
            held = self._held[lease_id]
            out.append(held)
        return out

    def postpone(self, held: Held) -> None:
        """Its revocation failed: it comes up again soon."""
        held.deadline = self._clock.monotonic() + MIN_TTL_S
        heapq.heappush(self._deadlines, (held.deadline, held.id))
