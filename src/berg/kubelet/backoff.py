"""Exponential back-off per key, as client-go's flowcontrol.Backoff: doubling from `initial_s` to `max_s`.

A key is forgotten when it has been quiet for twice the maximum, so that a container that ran well for ten
minutes starts again from the first step. Times are seconds of whatever clock the caller uses, consistently.
"""

from __future__ import annotations


class Backoff:
    def __init__(self, initial_s: float, max_s: float) -> None:
        self.initial_s = initial_s
        self.max_s = max_s
        self._entries: dict[str, tuple[float, float]] = {}  # key → (delay, last update)

    def delay(self, key: str) -> float:
        entry = self._entries.get(key)
        return entry[0] if entry else 0.0

    def next(self, key: str, now: float) -> None:
        """Records one more failure at `now`."""
        entry = self._entries.get(key)
        if entry is None or now - entry[1] > 2 * self.max_s:
            self._entries[key] = (self.initial_s, now)
        else:
            self._entries[key] = (min(entry[0] * 2, self.max_s), now)

    def waiting(self, key: str, event: float, now: float) -> bool:
        """Whether an event at `event` must still wait at `now`."""
        entry = self._entries.get(key)
        if entry is None or now - entry[1] > 2 * self.max_s:
            return False
        return now - event < entry[0]

    def waiting_since_update(self, key: str, now: float) -> bool:
        entry = self._entries.get(key)
        return bool(entry and now - entry[1] <= 2 * self.max_s and now - entry[1] < entry[0])

    def expiry(self, key: str, event: float | None = None) -> float:
        delay, last = self._entries.get(key, (0.0, 0.0))
        return (last if event is None else event) + delay

    def reset(self, key: str) -> None:
        self._entries.pop(key, None)

    def drop_prefix(self, prefix: str) -> None:
        for key in [k for k in self._entries if k.startswith(prefix)]:
            del self._entries[key]
