"""One object in the watch cache: its stored bytes, and what is made of them when somebody asks.

`raw` is spliced once and kept, because it is what every GET, LIST and WATCH writes. Parsed objects are large
(some eight times their JSON), so only the most recently parsed are kept, up to `PARSED_BYTES` of JSON; whoever
holds one keeps it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

Obj = dict[str, Any]

PARSED_BYTES = 6 << 20

_parsed: deque[tuple[Entry, int]] = deque()
_parsed_bytes = 0

_NO_LABELS: dict[str, str] = {}
_METADATA = b'"metadata":{'

Decode = Callable[[str, bytes], tuple[bytes, bool]]
"""(key, stored bytes) → (canonical JSON, stale)"""


class Entry:
    """A `CacheEntry`. Immutable to everyone else."""

    __slots__ = ("_data", "_decode", "_labels", "_obj", "_raw", "_stale", "key", "name", "namespace", "revision")

    def __init__(self, key: str, namespace: str, name: str, revision: int, data: bytes, decode: Decode) -> None:
        self.key = key
        self.namespace = namespace
        self.name = name
        self.revision = revision
        self._data: bytes | None = data
        self._decode = decode
        self._raw: bytes | None = None
        self._stale = False
        self._obj: Obj | None = None
        self._labels: dict[str, str] | None = None

    @property
    def size_bytes(self) -> int:
        """As it is kept just now."""
        return len(self._data or self._raw or b"")

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.revision})"

    @property
    def raw(self) -> bytes:
        raw = self._raw
        if raw is None:
            data = self._data
            assert data is not None
            plain, self._stale = self._decode(self.key, data)
            raw = self._raw = splice(plain, self.revision)
            self._data = None
        return raw

    @property
    def stale(self) -> bool:
        """As `CacheEntry.stale` says; known once the bytes were decoded."""
        _ = self.raw
        return self._stale

    @property
    def obj(self) -> Obj:
        obj = self._obj
        if obj is None:
            raw = self.raw
            obj = self._obj = orjson.loads(raw)
            _remember(self, len(raw))
        return obj

    @property
    def labels(self) -> dict[str, str]:
        labels = self._labels
        if labels is None:
            obj = self._obj
            if obj is None:  # parsed and let go: a label list of everything must not keep everything parsed
                data = self._data
                obj = orjson.loads(data if data is not None and data.startswith(b'{"kind":"') else self.raw)
            labels = self._labels = obj["metadata"].get("labels") or _NO_LABELS
        return labels

    def at(self, revision: int) -> Entry:
        """The same state, at the revision at which it was deleted."""
        data = self._data
        if data is None:
            raw = self.raw
            start = raw.index(_METADATA) + len(_METADATA)
            # what `splice` put in: "resourceVersion":"N" and a comma unless it is alone
            end = start + len(f'"resourceVersion":"{self.revision}"')
            data = raw[:start] + raw[end + (raw[end : end + 1] == b",") :]
            return Entry(self.key, self.namespace, self.name, revision, data, _as_is)
        return Entry(self.key, self.namespace, self.name, revision, data, self._decode)


def _as_is(key: str, data: bytes) -> tuple[bytes, bool]:
    return data, False


def splice(data: bytes, revision: int) -> bytes:
    """Canonical JSON with its resourceVersion in it."""
    at = data.index(_METADATA) + len(_METADATA)
    comma = b"" if data[at : at + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (data[:at], revision, comma, data[at:])


def _remember(entry: Entry, size: int) -> None:
    global _parsed_bytes
    _parsed.append((entry, size))
    _parsed_bytes += size
    while _parsed_bytes > PARSED_BYTES and len(_parsed) > 1:
        oldest, freed = _parsed.popleft()
        oldest._obj = None
        _parsed_bytes -= freed


def encode(obj: Obj, api_version: str, kind: str) -> bytes:
    """The object as it is stored: canonical JSON without resourceVersion. `obj` is not changed."""
    metadata = obj.get("metadata") or {}
    if "resourceVersion" in metadata:
        metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    out = {"kind": kind, "apiVersion": api_version, "metadata": metadata, **obj}
    out["metadata"] = metadata
    # A copy of its own size: what orjson returns still owns the buffer it was written in, some four times as large,
    # and this is kept as long as the object and its history are.
    return bytes(memoryview(orjson.dumps(out)))
