"""The watch cache's body: what `cacher.open_cacher` gives.

    write ─► store ─► Hub ─► publish: entries, order, indexes, recent events ─► watchers

Everything is kept under the key as clients say it (`namespace/name`), in one sorted list, so that a namespace
is a slice. An index is built when a list first asks for it and kept in step from then on. Recent events are kept
so that a watch can start a little in the past; further back the store is asked, when it is in this process.

Events are made once and shared: all watchers of the same scope get the same list object.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter

from berg.machinery.metrics import Cell
from berg.storage.cacher import (
    CacheEntry,
    CacheEvent,
    KeyExists,
    KeyMissing,
    Listing,
    Obj,
    Predicate,
    RevisionConflict,
    TooLargeResourceVersion,
)
from berg.storage.entry import Entry, encode
from berg.storage.fanout import EVERYTHING, Fanout, Watcher
from berg.storage.figures import CacheFigures
from berg.storage.hub import hub_of
from berg.storage.indexing import Index, IndexValues, label_values, normal
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResponse,
    Event,
    EventType,
    KeyValue,
    LeaseNotFound,
    Op,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RevisionCompacted,
    RevisionFuture,
    Store,
    Swapped,
    Synchronous,
    TxnRequest,
    prefix_end,
)
from berg.storage.transform import Adopt, Transformer, TransformError, decode_value

RECENT_EVENTS = 2048
FRESH_TIMEOUT_S = 3.0
PAGE = 10_000
"""objects per read when a remote store's state is loaded"""


class WatchCache:
    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        namespaced: bool,
        api_version: str,
        kind: str,
        transformer: Transformer | None = None,
        adopt: Adopt | None = None,
    ) -> None:
        self.store = store
        self.prefix = prefix.encode()
        self.namespaced = namespaced
        self.api_version = api_version
        self.kind = kind
        self._transformer = transformer
        self._adopt = adopt
        self._head = b'{"kind":"' if adopt is None else f'{{"kind":"{kind}","apiVersion":"{api_version}",'.encode()
        self._swap = store.swap if isinstance(store, Synchronous) else self._transact
        self._hub = hub_of(store, self.prefix)
        self.figures = CacheFigures()
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._computed: dict[str, IndexValues] = {"label": label_values}
        self._indexes: dict[str, Index] = {}
        self._fanout = Fanout()
        self._recent: deque[CacheEvent] = deque()
        self._recent_from = 0
        """`_recent` has every event after this revision"""
        self._changed = 0
        """the revision of the newest change to any object here"""
        self._loading: list[Event] | None = None
        self._loaded = 0

    # -- life

    async def start(self) -> None:
        """Returns when the state is loaded."""
        self._loading = []
        await self._hub.register(self)
        await self._load()

    async def close(self) -> None:
        self._hub.unregister(self)
        self._fanout.close()

    async def _load(self) -> None:
        revision, kvs = await self._read_all()
        for kv in kvs:
            entry = self._entry(kv)
            self._entries[entry.key] = entry
        self._keys = sorted(self._entries)
        self._recent_from = self._changed = revision
        self._take_missed(revision)

    async def _read_all(self) -> tuple[int, list[KeyValue]]:
        """Every object, at one revision."""
        started = perf_counter()
        end = prefix_end(self.prefix)
        limit = 0 if self._hub.synchronous else PAGE
        answer = await self.store.range(RangeRequest(self.prefix, end, limit=limit))
        revision = answer.revision
        kvs = list(answer.kvs)
        while answer.more:
            answer = await self.store.range(RangeRequest(kvs[-1].key + b"\0", end, limit=limit, revision=revision))
            kvs += answer.kvs
        figures = self.figures
        figures.asked_since("list", started)
        figures.loads += 1
        figures.listed_from_store(len(kvs), len(kvs))
        if self._transformer is not None:
            await self._transformer.prepare([kv.value for kv in kvs])
        return revision, kvs

    def _take_missed(self, revision: int) -> None:
        missed, self._loading = self._loading or [], None
        self._loaded = revision
        self.publish(missed)

    async def reload(self) -> None:
        """After a gap: watchers are ended (they resume and learn that it is gone), the state is read anew."""
        self._fanout.close()
        self._loading = []
        revision, kvs = await self._read_all()
        self._entries.clear()
        self._entries.update((e.key, e) for e in map(self._entry, kvs))
        self._keys = sorted(self._entries)
        self._indexes.clear()
        self._recent.clear()
        self._recent_from = self._changed = revision
        self._take_missed(revision)

    @property
    def revision(self) -> int:
        return self._hub.revision

    def __len__(self) -> int:
        return len(self._entries)

    def counter(self) -> Callable[[], int]:
        return self._entries.__len__

    capacity = RECENT_EVENTS

    @property
    def size_bytes(self) -> int:
        """As far as it is known without decoding anything."""
        return sum(entry.size_bytes for entry in self._entries.values())

    @property
    def lease_objects(self) -> Cell:
        """How many objects the leases had that are given out no more; shared by all cachers of a store."""
        return self._hub.lease_objects

    def interested(self, namespace: str, name: str) -> int:
        return self._fanout.interested(namespace, f"{namespace}/{name}" if self.namespaced else name)

    # -- entries

    def _entry(self, kv: KeyValue) -> Entry:
        return self._make(kv.key[len(self.prefix) :].decode(errors="surrogateescape"), kv.mod_revision, kv.value)

    def _make(self, key: str, revision: int, data: bytes) -> Entry:
        namespace, name = "", key
        if self.namespaced:
            namespace, _, name = key.partition("/")
        return Entry(key, namespace, name, revision, data, self._decode)

    def _decode(self, key: str, data: bytes) -> tuple[bytes, bool]:
        stale = False
        if self._transformer is not None:
            data, stale = self._transformer.from_storage(self.prefix + key.encode(), data)
        return decode_value(data, self._head, self._adopt), stale

    # -- events

    def publish(self, events: Sequence[Event]) -> None:
        if self._loading is not None:
            self._loading += events
            return
        if events and events[0].kv.mod_revision <= self._loaded:  # a remote watch may be behind what was loaded
            events = [e for e in events if e.kv.mod_revision > self._loaded]
        out: list[CacheEvent] = []
        entries = self._entries
        for event in events:
            entry = self._entry(event.kv)
            key = entry.key
            old = entries.get(key)
            if event.type is EventType.PUT:
                if old is None:
                    insort(self._keys, key)
                entries[key] = entry
                for index in self._indexes.values():
                    index.set(entry)
                out.append(CacheEvent("ADDED" if old is None else "MODIFIED", entry.revision, entry, old))
            elif old is not None:
                del entries[key]
                del self._keys[bisect_left(self._keys, key)]
                for index in self._indexes.values():
                    index.remove(key)
                out.append(CacheEvent("DELETED", entry.revision, old.at(entry.revision), old))
        figures = self.figures
        figures.received += len(events)
        figures.dispatched += len(out)
        if not out:
            return
        self._changed = out[-1].revision
        recent = self._recent
        recent.extend(out)
        while len(recent) > RECENT_EVENTS:
            self._recent_from = recent.popleft().revision
        self._fanout.publish(out, self._values)

    def _values(self, index: str, entry: CacheEntry) -> Sequence[str]:
        try:
            return self._computed[index](entry)
        except TransformError:
            return ()

    # -- reading

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    async def wait_for(self, revision: int) -> None:
        if self._hub.revision >= revision:
            return
        started = perf_counter()
        reached = await self._hub.wait_for(revision, FRESH_TIMEOUT_S)
        self.figures.waits.observe(perf_counter() - started)
        if not reached:
            raise TooLargeResourceVersion(self.revision)

    async def consistent(self) -> int:
        revision = await self._hub.newest()
        await self.wait_for(revision)
        return max(revision, self.revision)

    def index(self, name: str, values: IndexValues) -> None:
        self._computed[name] = values
        self._indexes.pop(name, None)

    async def list(
        self,
        *,
        namespace: str | None = None,
        index: tuple[str, str] | None = None,
        predicate: Predicate | None = None,
        limit: int = 0,
        after_key: str | None = None,
        exact_revision: int = 0,
    ) -> Listing:
        if index is not None:
            index = normal(index)
            if index[0] == "namespace":
                namespace, index = index[1], None
        if exact_revision:
            await self.wait_for(exact_revision)
            if exact_revision < self._changed:
                predicate = self._and_indexed(index, predicate)
                return await self._list_history(namespace, predicate, limit, after_key, exact_revision)
        keys = self._slice(namespace, after_key) if index is None else self._indexed(index, namespace, after_key)
        entries = self._entries
        found = _page((entries[k] for k in keys), len(keys), exact_revision or self.revision, predicate, limit)
        figures, name = self.figures, "" if index is None else index[0]
        figures.listed[name] += 1
        figures.fetched[name] += len(keys) if predicate is not None else len(found.entries)
        figures.returned += len(found.entries)
        return found

    def _slice(self, namespace: str | None, after_key: str | None) -> Sequence[str]:
        keys = self._keys
        first, last = 0, len(keys)
        if namespace:
            first = bisect_left(keys, f"{namespace}/")
            last = bisect_left(keys, f"{namespace}0", first)  # "0" comes right behind "/"
        if after_key is not None:
            first = max(first, bisect_right(keys, after_key))
        return keys if first == 0 and last == len(keys) else keys[first:last]

    def _indexed(self, wanted: tuple[str, str], namespace: str | None, after_key: str | None) -> Sequence[str]:
        name, value = wanted
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = Index(self._computed[name])
            for entry in self._entries.values():
                index.set(entry)
        keys: Iterable[str] = index.find(value)
        if namespace:
            head = f"{namespace}/"
            keys = (k for k in keys if k.startswith(head))
        if after_key is not None:
            keys = (k for k in keys if k > after_key)
        return sorted(keys)

    def _and_indexed(self, index: tuple[str, str] | None, predicate: Predicate | None) -> Predicate | None:
        """History has no indexes: what one would have found is asked of every object."""
        if index is None:
            return predicate
        name, value = index
        return lambda e: value in self._values(name, e) and (predicate is None or predicate(e))

    async def _list_history(
        self, namespace: str | None, predicate: Predicate | None, limit: int, after_key: str | None, revision: int
    ) -> Listing:
        start = self.prefix + (f"{namespace}/".encode() if namespace else b"")
        end = prefix_end(start)
        if after_key is not None:
            start = max(start, self.prefix + after_key.encode() + b"\0")
        fetch = limit if predicate is None else 0
        started = perf_counter()
        try:
            answer = await self.store.range(RangeRequest(start, end, limit=fetch, revision=revision))
        except RevisionFuture as e:
            raise TooLargeResourceVersion(self.revision) from e
        self.figures.asked_since("list", started)
        found = _page(map(self._entry, answer.kvs), answer.count, revision, predicate, limit)
        self.figures.listed_from_store(len(answer.kvs), len(found.entries))
        return found

    def watch(
        self,
        *,
        after: int,
        namespace: str | None = None,
        key: str | None = None,
        index: tuple[str, str] | None = None,
        buffer: int = 1000,
    ) -> Watcher:
        """Raises RevisionCompacted here and now."""
        scope = EVERYTHING
        if key is not None:
            scope = ("key", key)
        elif index is not None:
            scope = normal(index)
        elif namespace:
            scope = ("namespace", namespace)
        past = self._events_after(after)
        if scope != EVERYTHING:
            past = [e for e in past if self._concerns(scope, e)]
        return self._fanout.open(scope, after, past, buffer)

    def _concerns(self, scope: tuple[str, str], event: CacheEvent) -> bool:
        name, value = scope
        entries = [e for e in (event.entry, event.previous) if e is not None]
        if name == "key":
            return any(e.key == value for e in entries)
        if name == "namespace":
            return any(e.namespace == value for e in entries)
        return any(value in self._values(name, e) for e in entries)

    def _events_after(self, after: int) -> Sequence[CacheEvent]:
        if after >= self._changed:
            return ()
        if after >= self._recent_from:
            return [e for e in self._recent if e.revision > after]
        if not isinstance(self.store, Synchronous):
            raise RevisionCompacted(self._recent_from)
        events = self.store.events_from(after + 1)
        end = prefix_end(self.prefix)
        return [self._past(e) for e in events if self.prefix <= e.kv.key < end]

    def _past(self, event: Event) -> CacheEvent:
        previous = self._entry(event.prev_kv) if event.prev_kv is not None else None
        revision = event.kv.mod_revision
        if event.type is EventType.DELETE:
            key = event.kv.key[len(self.prefix) :].decode(errors="surrogateescape")
            gone = previous.at(revision) if previous is not None else self._make(key, revision, b"")
            return CacheEvent("DELETED", revision, gone, previous)
        kind = "ADDED" if event.kv.version == 1 else "MODIFIED"
        return CacheEvent(kind, revision, self._entry(event.kv), previous)

    # -- writing

    async def create(self, key: str, obj: Obj, *, ttl_s: int = 0) -> Entry:
        stored, data, answer = await self._write(key, obj, 0, ttl_s)
        if not answer.done:
            found = answer.before
            raise KeyExists(self._make(key, answer.revision, data) if found is None else self._entry(found))
        return await self._written(key, answer.revision, stored)

    async def update(self, key: str, obj: Obj, *, expected: int, ttl_s: int = 0) -> Entry:
        stored, _, answer = await self._write(key, obj, expected, ttl_s)
        if not answer.done:
            raise self._conflict(key, answer)
        return await self._written(key, answer.revision, stored)

    async def delete(self, key: str, *, expected: int) -> Entry:
        started, well = perf_counter(), False
        try:
            answer = await self._swap(self.prefix + key.encode(), expected, None)
            well = True
        finally:
            self.figures.asked_since("delete", started, well=well)
        if not answer.done or answer.before is None:
            raise self._conflict(key, answer)
        last = self._make(key, answer.revision, answer.before.value)
        await self._hub.wait_for(answer.revision, FRESH_TIMEOUT_S)
        return last

    async def _write(self, key: str, obj: Obj, expected: int, ttl_s: int) -> tuple[bytes, bytes, Swapped]:
        """(the bytes in the store, the JSON, the answer). Compares with `expected`, 0: not there."""
        storage_key = self.prefix + key.encode()
        data = encode(obj, self.api_version, self.kind)
        stored = data if self._transformer is None else self._transformer.to_storage(storage_key, data)
        while True:
            lease = await self._hub.lease(ttl_s) if ttl_s else 0
            started, well = perf_counter(), False
            try:
                answer = await self._swap(storage_key, expected, stored, lease)
                well = True
                return stored, data, answer
            except LeaseNotFound:
                if not ttl_s:
                    raise
                self._hub.forget_lease(ttl_s)
            finally:
                self.figures.asked_since("update" if expected else "create", started, well=well)

    async def _transact(self, key: bytes, expected: int, value: bytes | None, lease: int = 0) -> Swapped:
        """`Synchronous.swap` on any store."""
        change: Op = DeleteRequest(key, prev_kv=True) if value is None else PutRequest(key, value, lease)
        compare = Compare(key, CompareTarget.MOD, CompareResult.EQUAL, expected)
        answer = await self.store.txn(TxnRequest((compare,), (change,), (RangeRequest(key),)))
        match answer.responses[0] if answer.responses else None:
            case RangeResponse(kvs=[kv]) | DeleteResponse(prev_kvs=[kv]):
                return Swapped(answer.succeeded, answer.revision, kv)
        return Swapped(answer.succeeded, answer.revision, None)

    async def _written(self, key: str, revision: int, stored: bytes) -> Entry:
        if self._hub.revision < revision:
            await self._hub.wait_for(revision, FRESH_TIMEOUT_S)
        entry = self._entries.get(key)
        if entry is not None and entry.revision == revision:
            return entry
        return self._make(key, revision, stored)  # already overwritten

    def _conflict(self, key: str, answer: Swapped) -> Exception:
        return KeyMissing(key) if answer.before is None else RevisionConflict(self._entry(answer.before))


def _page(entries: Iterator[Entry], count: int, revision: int, predicate: Predicate | None, limit: int) -> Listing:
    """One page out of `count` entries that come in key order."""
    out: list[Entry] = []
    if predicate is None and (not limit or count <= limit):
        return Listing(revision, list(entries))
    for entry in entries:
        if predicate is not None and not predicate(entry):
            continue
        if limit and len(out) == limit:
            # one more fits the selector, so this is not the end; how many more is only known without one
            remaining = count - limit if predicate is None else 0
            return Listing(revision, out, remaining, out[-1].key)
        out.append(entry)
    if limit and predicate is None and count > len(out):
        return Listing(revision, out, count - len(out), out[-1].key)
    return Listing(revision, out)
