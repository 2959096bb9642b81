"""NaCl's secretbox: XSalsa20 and Poly1305, which `cryptography` has only one half of.

The cipher is here in full. Deriving the sub-key (HSalsa20) is one block of plain integers; the key stream is
computed for all blocks of a value at once with numpy, so that its cost hardly depends on the value's length.

Source: "Salsa20 specification", "Extending the Salsa20 nonce" (D. J. Bernstein); NaCl crypto_secretbox.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from berg.storage.transform import TransformError

NONCE_BYTES, TAG_BYTES, _BLOCK = 24, 16, 64
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF

# the words that one double round adds and rotates into each other: columns, then rows
_QUARTERS = (
    ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
    (
        (0, 1, 2, 3),
        (5, 6, 7, 4),
        (10, 11, 8, 9),
        (15, 12, 13, 14),
    ),
)


class Secretbox:
    def __init__(self, secret: bytes) -> None:
        self._key = secret

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + seal(self._key, nonce, value)

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        if len(data) < NONCE_BYTES + TAG_BYTES:
            raise TransformError("the stored data was shorter than the required size")
        return open_box(self._key, data[:NONCE_BYTES], data[NONCE_BYTES:]), False


def seal(key: bytes, nonce: bytes, value: bytes) -> bytes:
    """Tag and ciphertext."""
    stream = _stream(key, nonce, 32 + len(value))
    cipher = _xor(value, stream[32:])
    return Poly1305.generate_tag(stream[:32], cipher) + cipher


def open_box(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """Raises TransformError when the box was not sealed with this key and nonce."""
    tag, cipher = box[:TAG_BYTES], box[TAG_BYTES:]
    stream = _stream(key, nonce, 32 + len(cipher))
    try:
        Poly1305.verify_tag(stream[:32], cipher, tag)
    except InvalidSignature:
        raise TransformError("secretbox: message authentication failed") from None
    return _xor(cipher, stream[32:])


def _xor(data: bytes, stream: bytes) -> bytes:
    size = len(data)
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream[:size], "little")).to_bytes(size, "little")


def _stream(key: bytes, nonce: bytes, size: int) -> bytes:
    """`size` bytes of XSalsa20's key stream."""
    import numpy as np

    sub_key = struct.unpack("<8I", _hsalsa20(key, nonce[:16]))
    tail = struct.unpack("<2I", nonce[16:])
    blocks = -(-size // _BLOCK)
    counter = np.arange(blocks, dtype=np.uint64)
    low, high = (counter & np.uint64(_MASK)).astype(np.uint32), (counter >> np.uint64(32)).astype(np.uint32)
    start: list[Any] = [np.full(blocks, word, dtype=np.uint32) for word in _layout(sub_key, (*tail, 0, 0))]
    start[8], start[9] = low, high
    words = [word.copy() for word in start]
    for _ in range(10):
        for quarters in _QUARTERS:
            for a, b, c, d in quarters:
                for target, x, y, turn in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
                    mixed = words[x] + words[y]
                    words[target] ^= (mixed << np.uint32(turn)) | (mixed >> np.uint32(32 - turn))
    table = np.stack([word + first for word, first in zip(words, start, strict=True)], axis=1)
    return bytes(table.astype("<u4").tobytes()[:size])


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    words = list(_layout(struct.unpack("<8I", key), struct.unpack("<4I", nonce)))
    for _ in range(10):
        for quarters in _QUARTERS:
            for a, b, c, d in quarters:
                for target, x, y, turn in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
                    mixed = (words[x] + words[y]) & _MASK
                    words[target] ^= ((mixed << turn) | (mixed >> (32 - turn))) & _MASK
    return struct.pack("<8I", *(words[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def _layout(key: tuple[int, ...], middle: tuple[int, ...]) -> tuple[int, ...]:
    """The initial state: constants on the diagonal, key, nonce and counter between them."""
    s = _SIGMA
    return (s[0], *key[:4], s[1], *middle, s[2], *key[4:], s[3])
