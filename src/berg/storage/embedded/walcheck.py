"""Reading a SQLite write-ahead log before SQLite does.

SQLite recovers a WAL up to the first frame whose checksum is wrong and forgets the rest without a word. For a
torn tail (the commit that was being written when the power went) that is right: it was never acknowledged. For
damage in the middle it would silently drop acknowledged commits. The two are told apart here: every commit is
synced before the next one starts, so behind a bad frame there can be at most one commit of the same generation.

Source: SQLite file format, section 4 (the write-ahead log).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from berg.storage.interface import Corrupt

_HEADER = 32
_FRAME = 24
_MASK = 0xFFFFFFFF


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def check_wal(path: Path) -> None:
    """Raises Corrupt when the WAL of the database at `path` has acknowledged commits behind a damaged frame."""
    wal = wal_path(path)
    try:
        data = wal.read_bytes()
    except FileNotFoundError:
        return
    if len(data) < _HEADER:
        return
    magic, _, page_size, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", data[:_HEADER])
    if magic not in (0x377F0682, 0x377F0683):
        raise Corrupt(f"{wal} is damaged: its header is not that of a write-ahead log")
    size = 65536 if page_size == 1 else page_size
    order = ">" if magic & 1 else "<"
    if not _header_holds(data, order, sum1, sum2):
        raise Corrupt(f"{wal} is damaged: its header has a wrong checksum")
    step = _FRAME + size
    frames = (len(data) - _HEADER) // step
    salt = struct.pack(">2I", salt1, salt2)
    good = 0
    for holds in _frames_hold(data, frames, step, order, (sum1, sum2), salt):
        if not holds:
            break
        good += 1
    behind = 0
    for number in range(good, frames):
        at = _HEADER + number * step
        commit = data[at + 4 : at + 8] != b"\0\0\0\0"
        if commit and data[at + 8 : at + 16] == salt:
            behind += 1
    if behind > 1:
        raise Corrupt(
            f"{wal} is damaged at frame {good}, with {behind} commits behind it that were written later: "
            "acknowledged writes would be lost. Restore the store from a backup or a snapshot"
        )


def _header_holds(data: bytes, order: str, sum1: int, sum2: int) -> bool:
    s1 = s2 = 0
    words = struct.unpack(order + "6I", data[:24])
    for x, y in zip(words[::2], words[1::2], strict=True):
        s1 = (s1 + x + s2) & _MASK
        s2 = (s2 + y + s1) & _MASK
    return (s1, s2) == (sum1, sum2)


def _frames_hold(
    data: bytes, frames: int, step: int, order: str, start: tuple[int, int], salt: bytes
) -> Iterator[bool]:
    """Frame by frame, whether its salt and its running checksum are right.

    The checksum adds each pair of words (x, y) as s1 += x + s2; s2 += y + s1: a linear step with the matrix
    [[1, 1], [1, 2]] modulo 2**32. So what a frame adds is a product of its words with that matrix' powers, which
    numpy does for many frames at once, and only one step per frame is left to Python.
    """
    import numpy as np

    pairs = (step - _FRAME) // 8 + 1  # the first 8 bytes of the frame's head, then the page
    p, q, r = 1, 0, 1
    powers = []
    for _ in range(pairs):
        powers.append((p, q, r))
        p, q, r = (p + q) & _MASK, (q + r) & _MASK, (q + 2 * r) & _MASK
    powers.reverse()
    to_first = np.array([c for p_, q_, _ in powers for c in ((p_ + q_) & _MASK, q_)], dtype=np.uint32)
    to_second = np.array([c for _, q_, r_ in powers for c in ((q_ + r_) & _MASK, r_)], dtype=np.uint32)
    s1, s2 = start
    chunk = max(1, (8 << 20) // step)
    for first in range(0, frames, chunk):
        count = min(chunk, frames - first)
        raw = np.frombuffer(data, dtype=order + "u4", count=count * step // 4, offset=_HEADER + first * step)
        table = raw.reshape(count, step // 4)
        words = np.concatenate((table[:, :2], table[:, _FRAME // 4 :]), axis=1).astype(np.uint32)
        adds1 = (words * to_first).sum(axis=1, dtype=np.uint32).tolist()
        adds2 = (words * to_second).sum(axis=1, dtype=np.uint32).tolist()
        for i in range(count):
            at = _HEADER + (first + i) * step
            s1, s2 = (p * s1 + q * s2 + adds1[i]) & _MASK, (q * s1 + r * s2 + adds2[i]) & _MASK
            want = struct.unpack_from(">2I", data, at + 16)
            yield (s1, s2) == want and data[at + 8 : at + 16] == salt
