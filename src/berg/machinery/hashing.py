"""Hashes that show in names and labels: stable for one content, safe to use in a name.

Differs from upstream: upstream hashes Go's dump of its internal struct, which no other program can repeat; Berg
hashes the canonical JSON. The form is the same (FNV-1a 32 bits, in the same safe alphabet), and a hash is only
ever compared with one that the same controller made.

Source: k8s.io/kubernetes pkg/util/hash, k8s.io/apimachinery pkg/util/rand SafeEncodeString.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

import orjson

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
_random = random.SystemRandom()


def fnv32a(data: bytes, state: int = 0x811C9DC5) -> int:
    for byte in data:
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def fnv64(data: bytes) -> int:
    """FNV-1, not 1a."""
    state = 0xCBF29CE484222325
    for byte in data:
        state = (state * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF) ^ byte
    return state


def safe_encode(text: str) -> str:
    """Each character mapped into an alphabet without vowels and look-alikes."""
    return "".join(_SAFE[ord(c) % len(_SAFE)] for c in text)


def hash_of(value: Any, collision_count: int | None = None) -> str:
    """At most ten characters; `collision_count` gives another one for the same value."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if collision_count is not None:
        data += collision_count.to_bytes(8, "little", signed=True)
    return safe_encode(str(fnv32a(data)))


def pod_template_hash(template: dict[str, Any], collision_count: int | None = None) -> str:
    return hash_of(template, collision_count)


def suffix_of(data: bytes, length: int = 5) -> str:
    """One that looks like a random one, the same for the same data."""
    return "".join(_SAFE[byte % len(_SAFE)] for byte in blake2b(data, digest_size=length).digest())


def random_suffix(length: int = 5) -> str:
    """What generateName adds."""
    return "".join(_random.choices(_SAFE, k=length))
