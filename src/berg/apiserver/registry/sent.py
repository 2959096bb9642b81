"""What watchers were sent: how many events, of which sizes.

A chunk that a crowd shares is looked into once; each of the crowd adds one to how often it was sent.

Source: k8s.io/apiserver pkg/endpoints/handlers/watch.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from berg.machinery.metrics import Cell, exponential

SIZES = exponential(1024, 2, 8)
KEPT_CHUNKS, LARGEST_KEPT_CHUNK_BYTES = 8, 256 << 10


@dataclass(slots=True)
class Chunk:
    """Framed events in one piece."""

    data: bytes
    sizes: Sequence[int]
    version: str
    times: int = 0


class Sent:
    __slots__ = ("_cells", "_chunks", "initial")

    def __init__(self) -> None:
        self.initial = 0
        """objects that were there when a watch began"""
        self._cells: dict[str, Cell] = {}
        self._chunks: dict[tuple[object, ...], Chunk] = {}

    def note(self, version: str, frames: Iterable[bytes]) -> None:
        """Sent once."""
        cell = self._cell(version)
        for frame in frames:
            cell.observe(len(frame))

    def shared(self, name: tuple[object, ...]) -> Chunk | None:
        return self._chunks.get(name)

    def share(self, name: tuple[object, ...], version: str, frames: Sequence[bytes]) -> Chunk:
        """The frames in one piece, kept for a while unless it is large."""
        chunk = Chunk(b"".join(frames), [len(f) for f in frames], version)
        if len(chunk.data) > LARGEST_KEPT_CHUNK_BYTES:
            self.note(version, frames)
            return chunk
        if len(self._chunks) >= KEPT_CHUNKS:
            self._settle(self._chunks.pop(next(iter(self._chunks))))
        self._chunks[name] = chunk
        return chunk

    def cells(self) -> dict[str, Cell]:
        """By version."""
        for chunk in self._chunks.values():
            self._settle(chunk)
        return self._cells

    def _settle(self, chunk: Chunk) -> None:
        cell = self._cell(chunk.version)
        for size in chunk.sizes:
            cell.observe_many(size, chunk.times)
        chunk.times = 0

    def _cell(self, version: str) -> Cell:
        found = self._cells.get(version)
        if found is None:
            found = self._cells[version] = Cell(SIZES)
        return found
