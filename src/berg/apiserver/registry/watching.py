"""WATCH: first what is there (when asked for), then every change, each framed once for all who watch.

A frame is `{"type":…,"object":…}` and a newline. Its bytes are kept for a while under (revision, key, type), so that
a thousand watchers of a kind share them. A change that makes an object enter or leave the selection becomes ADDED
or DELETED.

Source: k8s.io/apiserver pkg/endpoints/handlers/watch.go, KEP-3157 (initial events), KEP-956 (bookmarks).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import cast

from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import listing, negotiation, table
from berg.apiserver.registry.options import ListOptions
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.selection import Selection
from berg.machinery import status
from berg.machinery.codec import json as json_codec
from berg.machinery.metrics import Cell
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import CacheEntry, CacheEvent
from berg.storage.fanout import Watcher
from berg.storage.interface import RevisionCompacted

BOOKMARK_S = 60.0
KEPT_FRAMES, LARGEST_KEPT_BYTES = 512, 64 * 1024
MAX_COALESCED = 100
WATCH_LIST_S = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)


@dataclass(slots=True)
class Watch:
    """One watcher: what it wants and how it wants it written."""

    request: Request
    registry: Registry
    resource: Resource
    selection: Selection
    options: ListOptions
    accepted: negotiation.Accepted
    include: str = ""
    columns_sent: bool = False
    marked: bool = False
    """a bookmark of its own is among what it will take next"""
    view: tuple[str, ...] = ()
    """what it sees, and how: watchers of one view get the same bytes"""

    @property
    def plain(self) -> bool:
        """The stored bytes are what this watcher gets: frames are shared."""
        return (
            not self.accepted.shape
            and self.registry.convert_custom is None
            and self.registry.schema_revision < 0
            and self.registry.is_stored_as(self.resource)
        )

    # ---- frames

    async def frame(self, type_: str, entry: CacheEntry, revision: int) -> bytes:
        if self.plain:
            frames = self.registry.frames
            name = (revision, entry.key, type_ + self.accepted.media_type)
            found = frames.get(name)
            if found is None:
                if self.accepted.media_type != negotiation.JSON:
                    found = self._encode(type_, entry.obj)
                else:
                    found = b'{"type":"%b","object":%b}\n' % (type_.encode(), entry.raw)
                if len(frames) >= KEPT_FRAMES:
                    for old in list(frames)[: KEPT_FRAMES // 2]:
                        del frames[old]
                if len(found) <= LARGEST_KEPT_BYTES:
                    frames[name] = found
            return found
        return self._encode(type_, await self.registry.to_version(entry, self.resource))

    def _encode(self, type_: str, obj: Obj) -> bytes:
        shape = self.accepted.shape
        if shape == "Table" and type_ != "ERROR":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            first, self.columns_sent = not self.columns_sent, True
            obj = table.table(
                self.registry.strategy,
                [obj],
                metadata,
                "Metadata" if type_ == "BOOKMARK" else self.include,
                version=self.accepted.version,
                with_columns=first,
            )
        elif shape == "PartialObjectMetadata" and type_ != "ERROR":
            obj = table.partial(obj, self.accepted.version)
        if self.accepted.media_type == negotiation.PROTOBUF:
            from berg.machinery.codec import protobuf

            return protobuf.watch_event(type_, protobuf.dumps(obj))
        if self.accepted.media_type == negotiation.CBOR:
            from berg.machinery.codec import cbor

            return cbor.watch_event(type_, obj)
        return b'{"type":"%b","object":%b}\n' % (type_.encode(), json_codec.dumps(obj))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Obj = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": metadata}
        return self._encode("BOOKMARK", obj)

    def error(self, error: ApiError) -> bytes:
        return self._encode("ERROR", error.to_status())

    # ---- the stream

    async def stream(self, after: int, initial: listing.Page | None) -> AsyncIterator[bytes]:
        if initial is not None:
            started = perf_counter()
            chunk: list[bytes] = []
            sent, version = self.registry.sent, self.resource.version
            sent.initial += len(initial.listing.entries)
            for entry in initial.listing.entries:
                chunk.append(await self.frame("ADDED", entry, entry.revision))
                if len(chunk) >= MAX_COALESCED:
                    sent.note(version, chunk)
                    yield b"".join(chunk)
                    chunk.clear()
            if self.options.send_initial_events and self.options.allow_bookmarks:
                chunk.append(self.bookmark(after, initial_end=True))
            if self.options.send_initial_events:
                self._observe(perf_counter() - started)
            if chunk:
                sent.note(version, chunk)
                yield b"".join(chunk)
        else:
            yield b""
        cacher = self.registry.cacher
        assert cacher is not None
        selection = self.selection
        try:
            watcher = cast(
                Watcher,
                cacher.watch(after=after, namespace=selection.namespace, key=selection.key, index=selection.index),
            )
        except RevisionCompacted as e:
            yield self.error(status.expired(f"too old resource version: {after} ({e.compact_revision + 1})"))
            return
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._timeout_s(), watcher.close)
        bookmarks: asyncio.TimerHandle | None = None

        def offer_bookmark() -> None:
            nonlocal bookmarks
            self.marked = True
            watcher.offer((CacheEvent("BOOKMARK", cacher.revision, None),))
            bookmarks = loop.call_later(BOOKMARK_S, offer_bookmark)

        if self.options.allow_bookmarks:
            bookmarks = loop.call_later(BOOKMARK_S * (0.9 + 0.1 * random.random()), offer_bookmark)
        crowd = self.registry.crowd
        crowd.size += 1
        try:
            while await watcher.ready():
                if crowd.large:
                    await crowd.turn()
                events = watcher.take()
                if events:
                    data = await self._chunk(events)
                    if data:
                        yield data
        finally:
            crowd.size -= 1
            end.cancel()
            if bookmarks is not None:
                bookmarks.cancel()
            watcher.close()

    async def _chunk(self, events: Sequence[CacheEvent]) -> bytes:
        """The frames of some events in one. Those who watch the same and take their turns together share it."""
        if not self.registry.crowd.large or not self.plain or self.marked:
            self.marked = False
            frames = await self._frames(events)
            self.registry.sent.note(self.resource.version, frames)
            return b"".join(frames)
        sent = self.registry.sent
        name = (*self.view, events[0].revision, events[-1].revision, len(events))
        chunk = sent.shared(name) or sent.share(name, self.resource.version, await self._frames(events))
        chunk.times += 1
        return chunk.data

    def _observe(self, seconds: float) -> None:
        """How long it took until a watcher had everything that was there."""
        scope = "resource" if self.selection.key else "namespace" if self.selection.namespace else "cluster"
        found = self.registry.watch_lists.setdefault((self.resource.version, scope), Cell(WATCH_LIST_S))
        found.observe(seconds)

    async def _frames(self, events: Sequence[CacheEvent]) -> list[bytes]:
        predicate = self.selection.predicate
        within = self.selection.namespace if self.selection.index is not None else None
        chunk: list[bytes] = []
        for event in events:
            type_, entry = event.type, event.entry
            if entry is None:  # the cacher's bookmark
                if self.options.allow_bookmarks:
                    chunk.append(self.bookmark(event.revision))
                continue
            if within is not None and entry.namespace != within:
                continue  # an index knows of no namespaces
            if predicate is not None or self.selection.late:
                judge = await self._late(event) if self.selection.late else predicate
                new_type = _within(judge or _everything, event)
                if new_type is None:
                    continue
                type_ = new_type
            chunk.append(await self.frame(type_, entry, event.revision))
        return chunk

    async def _late(self, event: CacheEvent) -> Callable[[CacheEntry], bool]:
        """The predicate for the entries of an event that must be converted to be judged."""
        first = self.selection.predicate or _everything
        entries = [e for e in (event.entry, event.previous) if e is not None and first(e)]
        chosen = {id(e) for e in await self.selection.narrow(entries)}
        return lambda entry: id(entry) in chosen

    def _timeout_s(self) -> float:
        if self.options.timeout_s:
            return float(self.options.timeout_s)
        least = self.registry.services.config.min_request_timeout_s
        return least * (1.0 + random.random())


def _everything(entry: CacheEntry) -> bool:
    return True


def _within(predicate: Callable[[CacheEntry], bool], event: CacheEvent) -> str | None:
    entry, previous = event.entry, event.previous
    assert entry is not None
    was = previous is not None and predicate(previous)
    if event.type == "DELETED":
        return "DELETED" if was or (previous is None and predicate(entry)) else None
    now = predicate(entry)
    if now:
        return "MODIFIED" if was else "ADDED"
    return "DELETED" if was else None


async def watch(
    request: Request, registry: Registry, resource: Resource, namespace: str, options: ListOptions
) -> Response:
    """Raises ApiError for what is wrong before the first event."""
    accepted = negotiation.negotiate(request, negotiation.OBJECT_SHAPES, registry.media_types)
    if accepted.media_type == negotiation.YAML:
        raise status.not_acceptable(negotiation.STREAMED)
    cacher = registry.cacher or await registry.open()
    selection = Selection(registry, resource, namespace, options)
    watcher = Watch(request, registry, resource, selection, options, accepted, table.included(request))
    selectors = (request.arg("labelSelector"), request.arg("fieldSelector"))
    watcher.view = (accepted.media_type, namespace, request.info.name, *selectors)
    version = options.resource_version
    initial: listing.Page | None = None
    if options.send_initial_events or (version in ("", "0") and options.send_initial_events is None):
        wanted = ListOptions(
            options.label_selector,
            options.field_selector,
            version,
            "NotOlderThan" if version not in ("", "0") else "",
        )
        initial = await listing.read(registry, selection, wanted)
        after = initial.listing.revision
    elif version in ("", "0"):
        after = await cacher.consistent()
    else:
        after = int(version)
    content_type = accepted.media_type
    if accepted.media_type == negotiation.PROTOBUF:
        content_type += ";stream=watch"
    elif accepted.media_type == negotiation.CBOR:
        content_type = negotiation.CBOR_SEQUENCE
    return Response(200, content_type=content_type, stream=watcher.stream(after, initial))
