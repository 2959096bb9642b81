"""Where audit events go: a log, a webhook; at once or in batches; cut down to size.

    Recorder ─► Truncation? ─► Batches? ─► Log | Webhook

`process` says whether all events were kept; what cannot be kept is counted. In batch mode it answers at once and
drops what its buffer has no room for, in the other modes the request waits for it.

Source: k8s.io/apiserver plugin/pkg/audit/{buffered,log,truncate,webhook}, pkg/server/options/audit.go.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from berg.apiserver.audit import events as event_room
from berg.apiserver.audit.logfile import LogFile
from berg.apiserver.http.remote import Backoff, Remote, RemoteError
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.machinery.tasks import end

log = logging.getLogger(__name__)

MODES = ("batch", "blocking", "blocking-strict")
FORMATS = ("legacy", "json")

errors: Counter[str] = Counter()
"""plugin → events that were lost there, for `apiserver_audit_error_total`"""


class Backend(Protocol):
    async def process(self, events: Sequence[Obj]) -> bool: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...


def _lost(plugin: str, events: Sequence[Obj], why: object) -> None:
    errors[plugin] += len(events)
    log.error("Error in audit plugin '%s' affecting %d audit events: %s", plugin, len(events), why)


class Log:
    def __init__(self, write: Callable[[bytes], object], format_: str, close: Callable[[], None]) -> None:
        self._write = write
        self._text = (lambda e: event_room.line(e).encode()) if format_ == "legacy" else event_room.encoded
        self._close = close

    @classmethod
    def file(cls, file: LogFile, format_: str) -> Log:
        return cls(file.write, format_, file.close)

    @classmethod
    def standard_output(cls, format_: str) -> Log:
        def write(data: bytes) -> None:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()

        return cls(write, format_, lambda: None)

    async def process(self, events: Sequence[Obj]) -> bool:
        try:
            self._write(b"".join(self._text(e) + b"\n" for e in events))
        except (OSError, ValueError) as e:
            _lost("log", events, e)
            return False
        return True

    async def run(self) -> None: ...

    async def close(self) -> None:
        self._close()


class Webhook:
    def __init__(self, remote: Remote, clock: Clock, initial_backoff_s: float) -> None:
        self._remote = remote
        self._clock = clock
        self._backoff = Backoff(first_s=initial_backoff_s)

    async def process(self, events: Sequence[Obj]) -> bool:
        items = [{k: v for k, v in e.items() if k not in ("kind", "apiVersion")} for e in events]
        body: Obj = {"kind": "EventList", "apiVersion": event_room.VERSION, "metadata": {}, "items": items}
        try:
            await self._remote.post_patiently(body, self._clock, self._backoff)
        except RemoteError as e:
            if not 200 <= e.code < 300:  # it took them: the answer need not be JSON
                _lost("webhook", events, e)
                return False
        return True

    async def run(self) -> None: ...

    async def close(self) -> None:
        await self._remote.close()


@dataclass(slots=True, frozen=True)
class Terms:
    """How events are gathered: the `--audit-*-batch-*` flags."""

    buffer_size: int
    max_size: int
    max_wait_s: float
    throttle: bool
    qps: float
    burst: int
    beside: bool
    """whether a batch is sent while the next one gathers"""


class Batches:
    def __init__(self, inner: Backend, terms: Terms, clock: Clock) -> None:
        self._inner = inner
        self._terms = terms
        self._clock = clock
        self._waiting: list[Obj] = []
        self._first = asyncio.Event()
        self._full = asyncio.Event()
        self._sending: set[asyncio.Task[bool]] = set()
        self._tokens = float(terms.burst)
        self._filled = clock.monotonic()

    async def process(self, events: Sequence[Obj]) -> bool:
        room = self._terms.buffer_size - len(self._waiting)
        if room < len(events):
            _lost("buffered", events[room:], "audit buffer queue blocked")
        self._waiting += events[:room]
        if self._waiting:
            self._first.set()
        if len(self._waiting) >= self._terms.max_size:
            self._full.set()
        return True

    async def run(self) -> None:
        while True:
            await self._first.wait()
            if not self._full.is_set() and self._terms.max_size > 1:
                await self._until_full()
            await self._send_one()

    async def _until_full(self) -> None:
        waits = [
            asyncio.ensure_future(self._full.wait()),
            asyncio.ensure_future(self._clock.sleep(self._terms.max_wait_s)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(*waits)

    async def _send_one(self) -> None:
        batch, self._waiting = self._waiting[: self._terms.max_size], self._waiting[self._terms.max_size :]
        if not self._waiting:
            self._first.clear()
        if len(self._waiting) < self._terms.max_size:
            self._full.clear()
        if self._terms.throttle:
            await self._token()
        if not self._terms.beside:
            await self._inner.process(batch)
            return
        task = asyncio.get_running_loop().create_task(_call(self._inner, batch))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _token(self) -> None:
        """Waits for the token bucket."""
        now = self._clock.monotonic()
        self._tokens = min(float(self._terms.burst), self._tokens + (now - self._filled) * self._terms.qps)
        self._filled = now
        self._tokens -= 1
        if self._tokens < 0:
            await self._clock.sleep(-self._tokens / self._terms.qps)

    async def close(self) -> None:
        """Sends what has gathered."""
        while self._waiting:
            batch, self._waiting = self._waiting[: self._terms.max_size], self._waiting[self._terms.max_size :]
            await self._inner.process(batch)
        if self._sending:
            await asyncio.gather(*self._sending, return_exceptions=True)
        await self._inner.close()


async def _call(backend: Backend, batch: Sequence[Obj]) -> bool:
    return await backend.process(batch)


class Truncation:
    """Events that are too large lose what was sent and answered; batches that are too large are divided."""

    def __init__(self, inner: Backend, max_event_bytes: int, max_batch_bytes: int) -> None:
        self._inner = inner
        self._max_event_bytes = max_event_bytes
        self._max_batch_bytes = max_batch_bytes

    async def process(self, events: Sequence[Obj]) -> bool:
        well, batch, size = True, list[Obj](), 0
        for event in events:
            length = len(event_room.encoded(event)) + 1
            if length > self._max_event_bytes and event["level"] not in ("None", "Metadata"):
                event = _cut(event)
                length = len(event_room.encoded(event)) + 1
            if length > self._max_event_bytes:
                _lost("truncate", [event], "event is too large even after truncating")
                continue
            if batch and size + length > self._max_batch_bytes:
                well = await self._inner.process(batch) and well
                batch, size = [], 0
            batch.append(event)
            size += length
        return (await self._inner.process(batch) and well) if batch else well

    async def run(self) -> None:
        await self._inner.run()

    async def close(self) -> None:
        await self._inner.close()


def _cut(event: Obj) -> Obj:
    annotations = {**(event.get("annotations") or {}), "audit.k8s.io/truncated": "true"}
    kept = {k: v for k, v in event.items() if k not in ("requestObject", "responseObject")}
    return {**kept, "annotations": annotations}


class Forgiving:
    """Mode `blocking`: the request waits, but goes on when the events could not be kept."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    async def process(self, events: Sequence[Obj]) -> bool:
        await self._inner.process(events)
        return True

    async def run(self) -> None:
        await self._inner.run()

    async def close(self) -> None:
        await self._inner.close()
