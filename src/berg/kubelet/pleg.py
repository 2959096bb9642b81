"""Pod life-cycle events: tells which pods have changed in the runtime.

With a runtime that streams container events there is no polling at all; the list is read once whenever the stream
is (re)opened, so that nothing is missed. A runtime without the stream is listed once a second and compared.

Source: pkg/kubelet/pleg/evented.go, generic.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from berg.kubelet import pod as p
from berg.kubelet import runtime_status
from berg.kubelet.runtime_status import RuntimePod
from berg.machinery.clock import Clock
from berg.machinery.tasks import end
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, Code, CRIError

log = logging.getLogger(__name__)

RELIST_PERIOD_S = 1.0
RELIST_THRESHOLD_S = 180.0
RECONNECT_S = 1.0


class PLEG:
    def __init__(self, cri: CRI, clock: Clock, changed: Callable[[str], None]) -> None:
        self._cri = cri
        self._clock = clock
        self._changed = changed
        self._known: dict[str, RuntimePod] = {}
        self._last_seen = clock.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.streaming = False

    @property
    def known(self) -> dict[str, RuntimePod]:
        """The runtime's pods as of the last list."""
        return self._known

    def healthy(self) -> str | None:
        """Why not, or None."""
        if self.streaming:
            return None
        elapsed = self._clock.monotonic() - self._last_seen
        if elapsed > RELIST_THRESHOLD_S:
            return f"pleg was last seen active {int(elapsed)}s ago; threshold is 3m0s"
        return None

    async def relist(self) -> None:
        """Raises CRIError."""
        now = await runtime_status.list_all(self._cri)
        self._last_seen = self._clock.monotonic()
        before, self._known = self._known, now
        for uid in before.keys() | now.keys():
            old, new = before.get(uid), now.get(uid)
            if (old.states if old else {}) != (new.states if new else {}):
                self._changed(uid)

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._stream()
            except CRIError as e:
                if e.code == Code.UNIMPLEMENTED:
                    break
                log.warning("container events: %s", e)
            except Exception:
                log.exception("container events")
            self.streaming = False
            await self._clock.sleep(RECONNECT_S)
        self.streaming = False
        while True:
            try:
                await self.relist()
            except CRIError as e:
                log.warning("listing the runtime's pods: %s", e)
            await self._clock.sleep(RELIST_PERIOD_S)

    async def _stream(self) -> None:
        events = self._cri.get_container_events(pb.GetEventsRequest())
        first = asyncio.ensure_future(anext(aiter(events)))  # opened before the list, so that nothing falls between
        try:
            await asyncio.sleep(0)
            if first.done() and (error := first.exception()) is not None:
                raise error
            await self.relist()
            self.streaming = True
            self._event(await first)
        except StopAsyncIteration:
            return
        except BaseException:
            first.cancel()
            raise
        async for event in events:
            self._event(event)

    def _event(self, event: object) -> None:
        self._last_seen = self._clock.monotonic()
        uid = event.pod_sandbox_status.metadata.uid  # type: ignore[attr-defined]
        if not uid:
            for c in event.containers_statuses:  # type: ignore[attr-defined]
                uid = c.labels.get(p.LABEL_POD_UID, "")
                break
        if uid:
            self._changed(uid)
