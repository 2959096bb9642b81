"""Events: what a component tells about an object, correlated so that a fault that repeats is one Event.

`EventRecorder.event` only queues; a task sends. On the way each event passes the correlator:
1. more than `burst` events about one object from one source: dropped, one comes free every five minutes;
2. more than ten different messages with one reason in ten minutes: combined into one;
3. the same event again: the Event that is there gets a higher count.

Components of the core send core/v1 Events, the scheduler and newer ones events.k8s.io/v1 with `series`.

Source: client-go tools/record/events_cache.go, tools/events.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from berg.client.rest import Client
from berg.machinery import meta
from berg.machinery.clock import Clock, RealClock, rfc3339, rfc3339_micro
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

CORE = Resource("", "v1", "events", "Event", namespaced=True)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
CACHE_SIZE = 4096
SPAM_BURST = 25
SPAM_QPS = 1 / 300
AGGREGATE_MAX = 10
AGGREGATE_INTERVAL_S = 600.0
QUEUE_SIZE = 1000
SEND_TRIES = 12
SEND_WAIT_S = 10.0
SERIES_FINISHED_S = 360.0
MESSAGE_MAX = 1024

V = TypeVar("V")


class _Cache(Generic[V]):
    """The least recently used is forgotten."""

    def __init__(self) -> None:
        self._items: OrderedDict[Any, V] = OrderedDict()

    def get(self, key: Any) -> V | None:
        if (value := self._items.get(key)) is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: Any, value: V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > CACHE_SIZE:
            self._items.popitem(last=False)


@dataclass(slots=True)
class _Tokens:
    left: float
    at: float


@dataclass(slots=True)
class _Aggregate:
    messages: set[str]
    at: float


@dataclass(slots=True)
class _Sent:
    """An Event that exists (or is about to)."""

    obj: Obj
    count: int
    at: float
    created: bool = False


@dataclass(slots=True)
class _Pending:
    key: tuple[Any, ...]
    obj: Obj
    related: Obj | None = field(default=None)


class EventRecorder:
    """`component` is who tells; `host` the node, where there is one. `core=False` sends events.k8s.io/v1."""

    def __init__(
        self, client: Client, component: str, *, clock: Clock | None = None, host: str = "", core: bool = True
    ) -> None:
        self._client, self._component, self._host, self._core = client, component, host, core
        self._clock: Clock = clock or RealClock()
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(QUEUE_SIZE)
        self._task: asyncio.Task[None] | None = None
        self._spam: _Cache[_Tokens] = _Cache()
        self._aggregates: _Cache[_Aggregate] = _Cache()
        self._sent: _Cache[_Sent] = _Cache()
        self._last_nanos = 0

    def event(
        self, obj: Obj, type: str, reason: str, message: str, *, related: Obj | None = None, action: str = ""
    ) -> None:
        """`type` is Normal or Warning. Never blocks, never fails; when too much waits, the event is dropped."""
        ref = meta.object_reference(obj) if "metadata" in obj else obj
        now = self._clock.monotonic()
        source = (self._component, self._host, ref["kind"], ref.get("namespace"), ref["name"], ref.get("uid"))
        if self._core and not self._spam_free(source, now):
            return
        key: tuple[Any, ...] = (*source, ref.get("apiVersion"), ref.get("fieldPath"), type, reason)
        message = message[:MESSAGE_MAX]
        if self._core and self._aggregated(key, message, now):
            message = f"(combined from similar events): {message}"
        else:
            key = (*key, message) if self._core else (*key, action, (related or {}).get("uid"))
        pending = _Pending(key, self._make(ref, type, reason, message, related, action))
        try:
            self._queue.put_nowait(pending)
        except asyncio.QueueFull:
            log.warning("event dropped: %s %s", reason, message)
            return
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="event recorder")

    async def flush(self) -> None:
        """Until everything told so far has been sent."""
        await self._queue.join()

    async def stop(self) -> None:
        if self._task is not None:
            try:
                await asyncio.wait_for(self._queue.join(), 1)
            except TimeoutError:
                pass
            await end(self._task)

    # -- correlation

    def _spam_free(self, source: Any, now: float) -> bool:
        tokens = self._spam.get(source)
        if tokens is None:
            self._spam.put(source, tokens := _Tokens(SPAM_BURST, now))
        tokens.left = min(SPAM_BURST, tokens.left + (now - tokens.at) * SPAM_QPS)
        tokens.at = now
        if tokens.left < 1:
            return False
        tokens.left -= 1
        return True

    def _aggregated(self, key: Any, message: str, now: float) -> bool:
        seen = self._aggregates.get(key)
        if seen is None or now - seen.at > AGGREGATE_INTERVAL_S:
            self._aggregates.put(key, seen := _Aggregate(set(), now))
        seen.at = now
        seen.messages.add(message)
        if len(seen.messages) < AGGREGATE_MAX:
            return False
        if len(seen.messages) > AGGREGATE_MAX:
            seen.messages.pop()
        return True

    def _make(self, ref: Obj, type: str, reason: str, message: str, related: Obj | None, action: str) -> Obj:
        now = self._clock.now()
        namespace = ref.get("namespace") or "default"
        # The name is the time; two events of one moment must not share it.
        nanos = self._last_nanos = max(int(now.timestamp() * 1e6) * 1000, self._last_nanos + 1)
        md: Obj = {"name": f"{ref['name']}.{nanos:x}", "namespace": namespace}
        if self._core:
            source = {"component": self._component, **({"host": self._host} if self._host else {})}
            return {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": md,
                "involvedObject": ref,
                "reason": reason,
                "message": message,
                "source": source,
                "firstTimestamp": rfc3339(now),
                "lastTimestamp": rfc3339(now),
                "count": 1,
                "type": type,
                "eventTime": None,
                "reportingComponent": self._component,
                "reportingInstance": self._host,
            }
        event: Obj = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": md,
            "eventTime": rfc3339_micro(now),
            "regarding": ref,
            "reason": reason,
            "note": message,
            "type": type,
            "action": action or reason,
            "reportingController": self._component,
            "reportingInstance": self._host or self._component,
        }
        if related is not None:
            event["related"] = meta.object_reference(related) if "metadata" in related else related
        return event

    # -- sending

    async def _run(self) -> None:
        while True:
            pending = await self._queue.get()
            try:
                await self._deliver(pending)
            except Exception:
                log.exception("event not sent")
            finally:
                self._queue.task_done()

    async def _deliver(self, pending: _Pending) -> None:
        for attempt in range(SEND_TRIES):
            try:
                await self._send(pending)
                return
            except ApiError as e:
                if e.code < 500 or attempt == SEND_TRIES - 1:
                    # Refused for good; a namespace that is going away takes no events, and that is routine.
                    level = logging.DEBUG if e.code in (403, 404, 409) else logging.WARNING
                    log.log(level, "event %s not sent: %s", pending.obj["reason"], e.message)
                    return
            await self._clock.sleep(SEND_WAIT_S)

    async def _send(self, pending: _Pending) -> None:
        r = CORE if self._core else EVENTS
        now = self._clock.now()
        sent = self._sent.get(pending.key)
        if sent is not None and not self._core and self._clock.monotonic() - sent.at > SERIES_FINISHED_S:
            sent = None
        if sent is not None and sent.created:
            md = sent.obj["metadata"]
            patch: Obj
            if self._core:
                patch = {
                    "count": sent.count + 1,
                    "lastTimestamp": pending.obj["lastTimestamp"],
                    "message": pending.obj["message"],
                }
            else:
                patch = {"series": {"count": sent.count + 1, "lastObservedTime": rfc3339_micro(now)}}
            try:
                await self._client.patch(r, md["namespace"], md["name"], patch)
                sent.count += 1
                sent.at = self._clock.monotonic()
                return
            except ApiError as e:
                if e.code != 404:
                    raise
        await self._client.create(r, pending.obj)
        self._sent.put(pending.key, _Sent(pending.obj, 1, self._clock.monotonic(), True))
