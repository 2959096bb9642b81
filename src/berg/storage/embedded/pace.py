"""Whether the event loop itself may wait for the disk.

A commit on the log's own thread costs two changes of thread, and a busy interpreter gives its lock away late and in
several steps: on a machine that has other work, that takes many times as long as syncing to a quick disk does. So
while commits are quick the loop makes them itself, and what arrives meanwhile goes into the next one. When they are
slow, or one stalls, the thread makes them, so that reads go on; after a while the loop tries again.
"""

from __future__ import annotations

from collections import deque

MAY_WAIT_S = 0.001
"""what most commits take at most"""
STALL_S = 0.05
SAMPLES = 15
REST_COMMITS = 256


class Pace:
    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=SAMPLES)
        self._rest = 0
        """commits that the thread makes before the loop tries again"""

    def quick(self) -> bool:
        """Asked once for each commit."""
        if self._rest:
            self._rest -= 1
            return False
        return True

    def took(self, seconds: float) -> None:
        """How long the loop waited for one."""
        recent = self._recent
        recent.append(seconds)
        slow = len(recent) == SAMPLES and sorted(recent)[SAMPLES // 2] > MAY_WAIT_S
        if slow or seconds > STALL_S:
            recent.clear()
            self._rest = REST_COMMITS
