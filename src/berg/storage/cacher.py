"""The watch cache: one resource's objects, kept as the bytes that answers are made of.

The API server's registry reads and writes only here, never at the store. Reads come from memory, at least as
fresh as every write this server has acknowledged; writes go through to the store and come back as events.

Seam (signatures fixed; the body is the storage package's):
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from berg.machinery.metrics import Cell
    from berg.storage.figures import CacheFigures
    from berg.storage.interface import Store
    from berg.storage.transform import Adopt, Transformer
    from berg.storage.watchcache import WatchCache

Obj = dict[str, Any]


class KeyExists(Exception):
    def __init__(self, entry: CacheEntry) -> None:
        super().__init__(entry.key)
        self.entry = entry


class KeyMissing(Exception):
    """The key to be changed does not exist."""


class RevisionConflict(Exception):
    """The key changed meanwhile; `entry` is what it is now."""

    def __init__(self, entry: CacheEntry) -> None:
        super().__init__(entry.key)
        self.entry = entry


class TooLargeResourceVersion(Exception):
    """A read asked for a revision that this server has not reached within its patience."""

    def __init__(self, current: int) -> None:
        super().__init__(current)
        self.current = current


class CacheEntry(Protocol):
    """One object at one revision. Immutable; `obj` is shared and must not be changed by anyone."""

    key: str
    """`namespace/name`, or `name`"""
    namespace: str
    name: str
    revision: int

    @property
    def raw(self) -> bytes:
        """The object as JSON, resourceVersion in it, `kind` and `apiVersion` first: what a GET writes."""
        ...

    @property
    def obj(self) -> Obj:
        """Parsed once, at first use."""
        ...

    @property
    def labels(self) -> dict[str, str]: ...

    @property
    def stale(self) -> bool:
        """Whether the store would hold other bytes if this same object were written again (another encryption key):
        an update that changes nothing must then be written all the same."""
        ...


@dataclass(slots=True, frozen=True)
class Listing:
    revision: int
    entries: Sequence[CacheEntry]
    remaining: int = 0
    """how many objects come after these, where that is known; 0 when this is the end"""
    next_key: str | None = None


@dataclass(slots=True, frozen=True)
class CacheEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK. `entry` of a DELETED is the last state at the revision of
    the deletion; `previous` is the state before (needed to tell whether it leaves a selector)."""

    type: str
    revision: int
    entry: CacheEntry | None
    previous: CacheEntry | None = None
    frames: dict[Any, bytes] = field(default_factory=dict, compare=False, repr=False)
    """the encoded event by whatever key the server likes: the object is shared, so it is framed once for all
    watchers of it"""


Predicate = Callable[[CacheEntry], bool]


class Cacher(Protocol):
    """One per resource and storage prefix (`/registry/pods/`)."""

    @property
    def figures(self) -> CacheFigures:
        """What it has counted."""
        ...

    capacity: int
    """how many events it keeps"""

    @property
    def lease_objects(self) -> Cell: ...

    @property
    def size_bytes(self) -> int: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    @property
    def revision(self) -> int: ...

    def __len__(self) -> int:
        """how many objects there are"""
        ...

    def counter(self) -> Callable[[], int]:
        """`len`, for who asks it all the time."""
        ...

    def interested(self, namespace: str, name: str) -> int:
        """How many watch that object, with others or alone."""
        ...

    def get(self, key: str) -> CacheEntry | None: ...

    async def wait_for(self, revision: int) -> None:
        """Until the cache is at least this new. Raises TooLargeResourceVersion after 3 s."""
        ...

    async def consistent(self) -> int:
        """Until the cache is as new as the store is now (free with the embedded engine); returns the revision."""
        ...

    async def create(self, key: str, obj: Obj, *, ttl_s: int = 0) -> CacheEntry:
        """`obj` has no resourceVersion. Raises KeyExists."""
        ...

    async def update(self, key: str, obj: Obj, *, expected: int, ttl_s: int = 0) -> CacheEntry:
        """Raises RevisionConflict, KeyMissing."""
        ...

    async def delete(self, key: str, *, expected: int) -> CacheEntry:
        """The last state, at the revision of the deletion. Raises RevisionConflict, KeyMissing."""
        ...

    def index(self, name: str, values: Callable[[CacheEntry], Sequence[str]]) -> None:
        """Keeps an index, from the first list that asks for it. Always there: `("label", "key=value")` and
        `("namespace", name)`."""
        ...

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
        """In key order. `exact_revision` reads history; raises storage.RevisionCompacted when it is gone."""
        ...

    def watch(
        self,
        *,
        after: int,
        namespace: str | None = None,
        key: str | None = None,
        index: tuple[str, str] | None = None,
        buffer: int = 1000,
    ) -> AsyncIterator[Sequence[CacheEvent]]:
        """Batches of events with revision > `after`; of one key, or of one value in an index (of what has it or had
        it just before, in whatever namespace), or of a namespace, or all. Raises RevisionCompacted at once when they
        are no longer kept, and ends when the reader falls more than `buffer` events behind (a slow watcher is
        dropped). Whoever stops early closes it with `aclose()`."""
        ...


def open_cacher(
    store: Store,
    prefix: str,
    *,
    namespaced: bool,
    api_version: str,
    kind: str,
    transformer: Transformer | None = None,
    adopt: Adopt | None = None,
) -> WatchCache:
    """A Cacher of the objects under `prefix` (`/registry/pods/`), not started. One per store and prefix. `adopt`: for
    objects that are stored in another form than Berg's own of this version."""
    from berg.storage.watchcache import WatchCache

    return WatchCache(
        store, prefix, namespaced=namespaced, api_version=api_version, kind=kind, transformer=transformer, adopt=adopt
    )
