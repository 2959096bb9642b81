"""Whether two objects say the same: what is missing, null or empty is one thing, as in Go's semantic equality, and
so is `false` in the fields where Go has no pointer.

Source: apimachinery pkg/api/equality.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PLAIN_BOOLS = frozenset(
    {"hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "paused", "unschedulable"}
)


def _empty(key: str, value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {} or (value is False and key in PLAIN_BOOLS)


def same(a: Any, b: Any) -> bool:
    if a is b or (a == b and type(a) is type(b)):
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            x, y = a.get(key), b.get(key)
            if x != y and not (_empty(key, x) and _empty(key, y)) and not same(x, y):
                return False
        return True
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (_empty("", a) and _empty("", b))


def differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """One line for each leaf that differs, `- old` then `+ new`, for messages."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            x, y = a.get(key), b.get(key)
            if x != y and not (_empty(key, x) and _empty(key, y)):
                yield from differences(x, y, f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x != y:
                yield from differences(x, y, f"{path}[{i}]")
    elif not same(a, b):
        yield f"- {path}: {a!r}"
        yield f"+ {path}: {b!r}"
