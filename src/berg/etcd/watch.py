"""etcdserverpb.Watch: many watches on one stream.

Each watch has a reader task that turns the store's batches into answers; all of them, and what the requests
themselves call for, go through one queue to the client. The queue is short: a client that does not read stops
its readers, and the store keeps their place (see storage/embedded/watch.py), so a slow client costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.etcd.users import Users
from berg.machinery.tasks import end
from berg.storage.embedded.watch import Watch
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.convert import event_to
from berg.storage.etcd.errors import INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED
from berg.storage.interface import Event, RevisionCompacted, StoreError, Unavailable, WatchRequest

MESSAGE_BYTES = 1536 * 1024
QUEUE = 16
_END = None
_CODES = {
    INVALID_ARGUMENT: "InvalidArgument",
    PERMISSION_DENIED: "PermissionDenied",
    UNAUTHENTICATED: "Unauthenticated",
}


class WatchService:
    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._users = users

    def methods(self) -> list[Method]:
        return [
            Method(
                "/etcdserverpb.Watch/Watch",
                pb.WatchRequest,
                pb.WatchResponse,
                stream=self.watch,
                http=("/watch",),
                client_streams=True,
            )
        ]

    async def watch(self, call: Call, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        stream = _Stream(self._member, self._users, call)
        taking = asyncio.create_task(stream.take(requests))
        try:
            while (answer := await stream.queue.get()) is not _END:
                yield answer
        finally:
            taking.cancel()
            await stream.close()


class _Stream:
    def __init__(self, member: Member, users: Users, call: Call) -> None:
        self._member = member
        self._users = users
        self._call = call
        self.queue: asyncio.Queue[Message | None] = asyncio.Queue(QUEUE)
        self._watches: dict[int, tuple[Watch, asyncio.Task[None]]] = {}
        self._next_id = 0
        self._handing_on: set[int] = set()
        """watches whose events have been taken from the store and are not all in the queue yet"""

    async def take(self, requests: AsyncIterator[Message]) -> None:
        """Reads the client's requests until it has no more; the stream goes on as long as there are watches."""
        async for m in requests:
            which = m.WhichOneof("request_union")
            if which == "create_request":
                await self._create(m.create_request)
            elif which == "cancel_request":
                await self._cancel(m.cancel_request.watch_id)
            elif which == "progress_request" and self._settled():
                # a notice must never overtake the events it covers; who asks too early asks again
                await self.queue.put(pb.WatchResponse(header=self._member.header(), watch_id=-1))
        if not self._watches:
            await self.queue.put(_END)

    def _settled(self) -> bool:
        return not self._handing_on and all(watch.idle for watch, _ in self._watches.values())

    async def close(self) -> None:
        tasks = [task for _, task in self._watches.values()]
        for watch, task in self._watches.values():
            watch.close()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _create(self, m: Message) -> None:
        header = self._member.header()
        watch_id = m.watch_id
        refused = ""
        try:
            self._users.may_read(self._call, m.key or b"\0", m.range_end or None)
        except RpcError as e:
            refused = f"rpc error: code = {_CODES[e.code]} desc = {e.text}"
        if refused:
            pass
        elif m.start_revision < 0:
            refused = "etcdserver: mvcc: required revision has been compacted"
        elif watch_id and watch_id in self._watches:
            refused = "mvcc: duplicate watch ID provided on the WatchStream"
        elif m.range_end and m.range_end != b"\0" and m.range_end <= m.key:
            refused = "mvcc: watcher range is empty"
        if refused:
            await self.queue.put(
                pb.WatchResponse(header=header, watch_id=-1, created=True, canceled=True, cancel_reason=refused)
            )
            return
        if not watch_id:
            while self._next_id in self._watches:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        request = WatchRequest(
            m.key or b"\0",  # no key and an end: from the first key on
            m.range_end or None,
            m.start_revision,
            m.prev_kv,
            m.progress_notify,
            0 in m.filters,
            1 in m.filters,
        )
        watch = self._member.store.watch(request)
        await self.queue.put(pb.WatchResponse(header=header, watch_id=watch_id, created=True))
        task = asyncio.create_task(self._read(watch_id, watch, m.fragment))
        self._watches[watch_id] = (watch, task)

    async def _cancel(self, watch_id: int) -> None:
        found = self._watches.pop(watch_id, None)
        if found is None:
            return
        watch, task = found
        watch.close()
        await end(task)
        self._handing_on.discard(watch_id)
        await self.queue.put(pb.WatchResponse(header=self._member.header(), watch_id=watch_id, canceled=True))

    async def _read(self, watch_id: int, watch: Watch, fragment: bool) -> None:
        header = self._member.header
        try:
            async for batch in watch:
                if not batch.events:
                    await self.queue.put(pb.WatchResponse(header=header(batch.revision), watch_id=watch_id))
                self._handing_on.add(watch_id)
                for events, more in _messages(batch.events, fragment):
                    answer = pb.WatchResponse(
                        header=header(), watch_id=watch_id, events=map(event_to, events), fragment=more
                    )
                    await self.queue.put(answer)
                self._handing_on.discard(watch_id)
        except RevisionCompacted as e:
            answer = pb.WatchResponse(
                header=header(), watch_id=watch_id, canceled=True, compact_revision=e.compact_revision
            )
            answer.header.revision = 0
            await self._ended(watch_id, answer)
        except Unavailable:
            await self.queue.put(_END)
        except StoreError as e:
            answer = pb.WatchResponse(header=header(), watch_id=watch_id, canceled=True, cancel_reason=str(e))
            await self._ended(watch_id, answer)

    async def _ended(self, watch_id: int, answer: Message) -> None:
        self._watches.pop(watch_id, None)
        await self.queue.put(answer)


def _messages(events: Sequence[Event], fragment: bool) -> Iterator[tuple[Sequence[Event], bool]]:
    """(events of one message, whether the same revision goes on in the next). Without `fragment`, a revision is
    never split."""
    start = size = 0
    for i, event in enumerate(events):
        size += len(event.kv.key) + len(event.kv.value) + (len(event.prev_kv.value) if event.prev_kv else 0) + 64
        if size <= MESSAGE_BYTES or i == start:
            continue
        same = event.kv.mod_revision == events[i - 1].kv.mod_revision
        if same and not fragment:
            continue
        yield events[start:i], same
        start, size = i, 0
    if start < len(events):
        yield events[start:], False
