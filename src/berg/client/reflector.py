"""The reflector: keeps a sink equal to what the API server has, by list and watch.

One round is: get all objects (a WatchList stream where the server knows it, else a list), give them to the sink
as a whole, then follow the watch from there. A watch that ends is taken up from the last resourceVersion seen
(bookmarks move it); 410 means that this is too old, and a new round begins. Failures wait, longer each time.

Source: client-go tools/cache/reflector.go; KEP-3157.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol

from berg.client.rest import Client, WatchEvent
from berg.client.transport import ConnectionFailed
from berg.machinery.clock import Clock
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
WATCH_TIMEOUT_S = (300, 600)
BACKOFF_S = (0.8, 30.0)
HEALTHY_AFTER_S = 120.0
PAGE = 500


class Sink(Protocol):
    def replace(self, objects: Iterable[Obj]) -> None: ...

    def upsert(self, obj: Obj) -> None: ...

    def remove(self, obj: Obj) -> None: ...


class Reflector:
    sink: Sink

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        clock: Clock,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> None:
        self._client = client
        self._resource = resource
        self._clock = clock
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._metadata_only = metadata_only
        self._watch_list = True
        self._version = ""
        self._delay_s = BACKOFF_S[0]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock.monotonic()
            try:
                await self._round()
            except asyncio.CancelledError:
                raise
            except ApiError as e:
                # A server that is away is away for every watch: told once each, not at every try.
                again = isinstance(e, ConnectionFailed) and self._delay_s > BACKOFF_S[0]
                level = logging.DEBUG if e.code == 410 or again else logging.WARNING
                log.log(level, "watch of %s: %s", self._resource.group_resource, e.message)
                if e.code == 410 and self._version:
                    self._version = ""
                    continue  # at once; a server that calls even a new list too old is waited out
            except Exception:
                log.exception("watch of %s", self._resource.group_resource)
                self._version = ""
            if self._clock.monotonic() - began > HEALTHY_AFTER_S:
                self._delay_s = BACKOFF_S[0]
            await self._clock.sleep(self._delay_s * random.uniform(1.0, 2.0))
            self._delay_s = min(self._delay_s * 2, BACKOFF_S[1])

    async def _round(self) -> None:
        if self._version:  # a failure interrupted the watch; what is known may still be followed
            await self._follow()
            return
        if self._watch_list:
            try:
                await self._stream()
            except ApiError as e:
                if e.code not in (400, 403, 422) or self._version:
                    raise
                log.debug("%s: no WatchList here: %s", self._resource.group_resource, e.message)
                self._watch_list = False
        if not self._watch_list:
            await self._list()
        await self._follow()

    def _events(self, *, initial: bool) -> aclosing[AsyncGenerator[list[WatchEvent], None]]:
        return aclosing(
            self._client.watch_batches(
                self._resource,
                self._namespace,
                resource_version=self._version,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                send_initial_events=initial,
                timeout_s=random.randint(*WATCH_TIMEOUT_S),
                metadata_only=self._metadata_only,
            )
        )

    async def _stream(self) -> None:
        """WatchList: everything there is as events, a bookmark, then the changes on the same stream."""
        found: dict[tuple[str, str], Obj] | None = {}
        async with self._events(initial=True) as batches:
            async for batch in batches:
                for event in batch:
                    meta = event.object["metadata"]
                    if found is None:
                        self._pass_on(event.type, event.object)
                    elif event.type == "BOOKMARK":
                        if (meta.get("annotations") or {}).get(INITIAL_EVENTS_END) == "true":
                            self.sink.replace(found.values())
                            self._synced(meta["resourceVersion"])
                            found = None
                    elif event.type == "DELETED":
                        found.pop((meta.get("namespace", ""), meta["name"]), None)
                    else:
                        found[meta.get("namespace", ""), meta["name"]] = event.object
                await asyncio.sleep(0)

    async def _list(self) -> None:
        items: list[Obj] = []
        continue_ = ""
        while True:
            page = await self._client.list(
                self._resource,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=PAGE,
                continue_=continue_,
                metadata_only=self._metadata_only,
            )
            items += page.get("items") or []
            continue_ = page["metadata"].get("continue", "")
            if not continue_:
                break
        if not self._metadata_only:
            for obj in items:  # the items of a list say neither kind nor version
                obj.setdefault("apiVersion", self._resource.api_version)
                obj.setdefault("kind", self._resource.kind)
        self.sink.replace(items)
        self._synced(page["metadata"]["resourceVersion"])

    def _synced(self, version: str) -> None:
        self._version = version
        self._delay_s = BACKOFF_S[0]

    async def _follow(self) -> None:
        while True:
            began, events = self._clock.monotonic(), 0
            async with self._events(initial=False) as batches:
                async for batch in batches:
                    events += len(batch)
                    for event in batch:
                        self._pass_on(event.type, event.object)
                    await asyncio.sleep(0)
            if events == 0 and self._clock.monotonic() - began < 1.0:
                raise ApiError(500, "InternalError", "very short watch: the server ended it without an event")

    def _pass_on(self, type: str, obj: Obj) -> None:
        self._version = obj["metadata"]["resourceVersion"]
        if type in ("ADDED", "MODIFIED"):
            self.sink.upsert(obj)
        elif type == "DELETED":
            self.sink.remove(obj)
