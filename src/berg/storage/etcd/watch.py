"""A watch of a real cluster: a stream that is opened again, on another member, where it stopped.

Events of one revision can come in several fragments or messages; a batch is only handed on when its revision is
whole, so a reader that resumes after a batch's revision misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.cluster import Cluster, store_error
from berg.storage.etcd.convert import event_from, watch_to
from berg.storage.etcd.errors import UNAVAILABLE, from_wire
from berg.storage.interface import RevisionCompacted, StoreError, Unavailable, WatchBatch, WatchRequest

METHOD = "/etcdserverpb.Watch/Watch"
RETRY_S = 0.2


class EtcdWatch:
    def __init__(self, cluster: Cluster, request: WatchRequest) -> None:
        self._cluster = cluster
        self._request = request
        self._call: Any = None
        self._closed = False
        self._batches = self._read()
        self._reading: asyncio.Future[WatchBatch] | None = None
        self.on_close: Callable[[], None] = lambda: None

    def __aiter__(self) -> EtcdWatch:
        return self

    async def __anext__(self) -> WatchBatch:
        if self._closed:
            raise StopAsyncIteration
        self._reading = asyncio.ensure_future(anext(self._batches))
        try:
            return await self._reading
        except asyncio.CancelledError:
            if self._closed:
                raise StopAsyncIteration from None
            self._reading.cancel()
            raise
        finally:
            self._reading = None

    async def aclose(self) -> None:
        self._closed = True
        self.on_close()
        if self._call is not None:
            self._call.cancel()
        if self._reading is not None:
            self._reading.cancel()
        else:
            await self._batches.aclose()  # type: ignore[attr-defined]

    async def request_progress(self) -> None:
        """Asks for a batch without events that says where the watch stands."""
        if self._call is not None:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def _read(self) -> AsyncIterator[WatchBatch]:
        request = self._request
        while not self._closed:
            try:
                async for batch in self._stream(request):
                    if batch.revision:
                        request = request._replace(start_revision=max(batch.revision + 1, request.start_revision))
                    yield batch
            except (RevisionCompacted, asyncio.CancelledError):
                raise
            except StoreError as e:
                if not isinstance(e, Unavailable):
                    raise
            except grpc.aio.AioRpcError as e:
                failed = store_error(e)
                if not isinstance(failed, Unavailable):
                    raise failed from None
            self._cluster.move_on()
            await asyncio.sleep(RETRY_S)

    async def _stream(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        call = self._call = self._cluster.stream(METHOD, pb.WatchRequest, pb.WatchResponse)
        try:
            create = watch_to(request)
            create.fragment = True
            await call.write(pb.WatchRequest(create_request=create))
            events: list[Any] = []
            while (m := await call.read()) is not grpc.aio.EOF:
                if m.canceled:
                    if m.compact_revision:
                        raise RevisionCompacted(m.compact_revision)
                    raise from_wire(UNAVAILABLE, m.cancel_reason)
                if m.created and not request.start_revision:
                    # "from now" is now: a stream that breaks resumes from here
                    request = request._replace(start_revision=m.header.revision + 1)
                    yield WatchBatch(m.header.revision)
                    continue
                events += m.events
                if m.fragment or (m.created and not events):
                    continue
                if events:
                    yield WatchBatch(events[-1].kv.mod_revision, [event_from(e) for e in events])
                    events = []
                else:
                    yield WatchBatch(m.header.revision)
            raise Unavailable("etcd: the watch's stream ended")
        finally:
            self._call = None
            call.cancel()
