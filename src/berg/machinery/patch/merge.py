"""JSON merge patch (RFC 7386), as the library that upstream uses does it: nulls never reach the result.

Source: RFC 7386; evanphx/json-patch v4.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.patch.fault import malformed


def apply(doc: Any, patch: Any) -> Any:
    """`doc` with `patch`; shares unchanged parts with `doc`, changes neither."""
    if not isinstance(patch, dict):
        raise malformed("Invalid JSON Patch")
    return _merge(doc if isinstance(doc, dict) else {}, patch)


def _merge(doc: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(doc)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = _without_nulls(value)
    return merged


def _without_nulls(value: Any) -> Any:
    """Nulls of objects, also of those in lists; a null that is a list's element stays."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value
