"""One priority level: so many seats, and queues for what finds none.

A flow (say, one user's requests) is dealt a hand of queues and joins the shortest of them, so that one noisy flow
fills only its own hand and others mostly meet it nowhere. The next request comes from the queue that has had the
least service, its own counted.

Source: k8s.io/apiserver pkg/util/flowcontrol/fairqueuing.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from berg.apiserver.flowcontrol.borrowing import Demand, Limits
from berg.machinery.metrics import Timed
from berg.machinery.status import Obj


class Rejected(Exception):
    """`reason`: queue-full, concurrency-limit or time-out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Queue:
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)
    served: float = 0.0
    """seats given to it so far, never behind what an idle queue would have"""


class Level:
    def __init__(self, name: str) -> None:
        self.name = name
        self.uid = ""
        self.exempt = False
        self.limit = 1
        """seats just now: its own, less what is lent, more what is borrowed"""
        self.limits = Limits(1, 1, 1)
        self.max_seats = 1
        """the most that one request may take"""
        now = monotonic()
        self.demand = Demand(now)
        self.spent = Timed((0, 0, 0, 0), now)
        """how long so many seats and requests ran, and so many requests and seats waited"""
        self.running = 0
        """requests"""
        self.target = 0.0
        """seats it was to have when they were last dealt"""
        self._asked = 0
        """seats of what waits"""
        self.hand_size = 1
        self.queue_length = 0
        self.limit_is_known = False
        self.executing = 0
        self.waiting = 0
        self.rejected: dict[str, int] = {}
        self.dispatched = 0
        self.queues: list[Queue] = []
        self._least = 0.0

    def configure(self, obj: Obj, limits: Limits) -> None:
        spec = obj.get("spec") or {}
        self.uid = obj["metadata"].get("uid", "")
        self.exempt = spec.get("type") == "Exempt"
        self.limits = limits
        if not self.limit_is_known:
            self.limit, self.limit_is_known = limits.nominal, True
        response = (spec.get("limited") or {}).get("limitResponse") or {}
        queuing = response.get("queuing") or {}
        wanted = queuing.get("queues", 0) if response.get("type") == "Queue" else 0
        self.hand_size = queuing.get("handSize", 1)
        self.queue_length = queuing.get("queueLengthLimit", 50)
        per_hand = limits.nominal // max(self.hand_size, 1)
        self.max_seats = max(1, min(math.ceil(limits.nominal * 0.15), per_hand))
        if len(self.queues) < wanted:
            self.queues += [Queue() for _ in range(wanted - len(self.queues))]
        elif not self.waiting:
            del self.queues[wanted:]
        self._dispatch()

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._dispatch()

    def free(self, width: int) -> bool:
        """A request may start without waiting, and does not overtake one that waits."""
        return self.exempt or (not self.waiting and self._fits(width))

    def _fits(self, width: int) -> bool:
        """What is wider than all seats starts when nothing else runs."""
        taken = self.executing + width
        return taken <= self.limit or (not self.executing and self.limit > 0)

    def start(self, width: int) -> float:
        """When that was."""
        self.executing += width
        self.running += 1
        self.dispatched += 1
        now = monotonic()
        self.spent.turn((self.executing, self.running, self.waiting, self._asked), now)
        return now

    def finish(self, width: int) -> float:
        """When that was."""
        self.executing -= width
        self.running -= 1
        now = monotonic()
        self.spent.turn((self.executing, self.running, self.waiting, self._asked), now)
        if self.waiting:
            self._dispatch()
        return now

    async def wait(self, flow: str, width: int, timeout_s: float, joined: Callable[[int], None] | None = None) -> None:
        """Until it may start; its seats are taken then. `joined` is told how long its queue is. Raises Rejected."""
        if not self.queues:
            raise self._reject("concurrency-limit")
        queue = self._choose(flow)
        if len(queue.waiting) >= self.queue_length:
            raise self._reject("queue-full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (width, turn)
        if not queue.waiting:
            queue.served = max(queue.served, self._least)
        queue.waiting.append(entry)
        if joined is not None:
            joined(len(queue.waiting))
        self.waiting += 1
        self._asked += width
        self.spent.turn((self.executing, self.running, self.waiting, self._asked), monotonic())
        self._dispatch()
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as e:
            if turn.done() and not turn.cancelled():
                self.finish(width)  # its turn came just as it gave up
            elif entry in queue.waiting:
                queue.waiting.remove(entry)
                self.waiting -= 1
                self._asked -= width
            if isinstance(e, TimeoutError):
                raise self._reject("time-out") from None
            raise

    @property
    def room(self) -> int:
        """How many requests may wait."""
        return len(self.queues) * self.queue_length

    def _reject(self, reason: str) -> Rejected:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return Rejected(reason)

    def _choose(self, flow: str) -> Queue:
        return min((self.queues[i] for i in hand(flow, len(self.queues), self.hand_size)), key=lambda q: len(q.waiting))

    def _dispatch(self) -> None:
        while self.waiting:
            queue = min((q for q in self.queues if q.waiting), key=_finish)
            width, turn = queue.waiting[0]
            if not turn.done() and not self.exempt and not self._fits(width):
                return
            queue.waiting.popleft()
            self.waiting -= 1
            self._asked -= width
            if turn.done():
                continue
            self._least = queue.served
            queue.served += width
            self.start(width)
            turn.set_result(None)


def _finish(queue: Queue) -> float:
    """What the queue will have been given when its next request has run."""
    return queue.served + queue.waiting[0][0]


def hand(flow: str, deck: int, size: int) -> list[int]:
    """`size` different queues out of `deck`, the same for the same flow (shuffle sharding)."""
    value = int.from_bytes(hashlib.sha256(flow.encode()).digest()[:8], "big")
    cards: list[int] = []
    for i in range(min(size, deck)):
        value, card = divmod(value, deck - i)
        for taken in sorted(cards):
            card += card >= taken
        cards.append(card)
    return cards
