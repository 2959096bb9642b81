"""Whether two objects say the same: what is missing, null or empty is one thing, as in Go's semantic equality, and
so is `false` in the fields where Go has no pointer.

Source: apimachinery pkg/api/equality.
"""

from __future__ import annotations

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
