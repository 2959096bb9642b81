"""Expectations: what a controller has asked for and not yet seen in its informer.

A controller that creates three pods expects three additions; until it has seen them (or given up after five
minutes) its informer tells of the past, and acting on that would create them twice.

Source: pkg/controller/controller_utils.go, ControllerExpectations and UIDTrackingControllerExpectations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from berg.machinery.clock import Clock

TIMEOUT_S = 300.0


@dataclass(slots=True)
class _Expected:
    at: float
    adds: int = 0
    deletes: set[str] = field(default_factory=set)


class Expectations:
    """Additions are counted, deletions are known by the object's key or UID (so none is counted twice)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expected: dict[str, _Expected] = {}

    def satisfied(self, key: str) -> bool:
        """True when the informer has caught up, nothing was expected, or it has taken too long."""
        e = self._expected.get(key)
        if e is None:
            return True
        return (e.adds <= 0 and not e.deletes) or self._clock.monotonic() - e.at > TIMEOUT_S

    def expect(self, key: str, *, adds: int = 0, deletes: set[str] | frozenset[str] = frozenset()) -> None:
        """Replaces what was expected."""
        self._expected[key] = _Expected(self._clock.monotonic(), adds, set(deletes))

    def raise_by(self, key: str, *, adds: int = 0, deletes: set[str] | frozenset[str] = frozenset()) -> None:
        """Adds to what is expected."""
        e = self._expected.setdefault(key, _Expected(self._clock.monotonic()))
        e.adds += adds
        e.deletes |= deletes

    def added(self, key: str, count: int = 1) -> None:
        """Seen, or failed to be made and so never to be seen."""
        if (e := self._expected.get(key)) is not None:
            e.adds -= count

    def deleted(self, key: str, id: str) -> None:
        if (e := self._expected.get(key)) is not None:
            e.deletes.discard(id)

    def pending_adds(self, key: str) -> int:
        e = self._expected.get(key)
        return max(0, e.adds) if e is not None else 0

    def forget(self, key: str) -> None:
        self._expected.pop(key, None)
