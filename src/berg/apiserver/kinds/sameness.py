"""Whether two values say the same, as in Go's semantic equality: a missing list or map and an empty one are one
thing, and so are a field's zero value and none, unless Go has a pointer there.

Where the type is not at hand, whatever is missing, null or empty is the same, and so is `false` in the fields that are
known to be no pointers.

Source: apimachinery pkg/api/equality.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.typedef import Field, TypeDef

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


def same_struct(type_: TypeDef, a: Any, b: Any) -> bool:
    """`a`, `b`: values of the type; none is an empty one."""
    a, b = a or {}, b or {}
    return a == b or all(same_field(f, a.get(f.name), b.get(f.name)) for f in type_.fields.values())


def same_field(field: Field, x: Any, y: Any) -> bool:
    if x is y or (x == y and type(x) is type(y)):
        return True
    if field.pointer and (x is None) != (y is None):
        return False
    if field.struct is not None:
        return same_struct(field.struct, x, y)
    if field.item is None:
        return bool(x == y) or (not field.pointer and not x and not y)
    item, x, y = field.item, x or (), y or ()
    if len(x) != len(y):
        return False
    if field.type == "map":
        return x.keys() == y.keys() and all(same_field(item, x[key], y[key]) for key in x)
    return all(same_field(item, one, other) for one, other in zip(x, y, strict=True))
