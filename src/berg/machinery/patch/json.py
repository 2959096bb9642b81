"""JSON patch (RFC 6902) with the leniencies of the library that upstream uses: `replace` of a key that is not
there adds it, `test` of a missing key against null holds, negative indexes count from the end.

Source: RFC 6902, RFC 6901; evanphx/json-patch v4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.machinery.codec import json as codec
from berg.machinery.patch.fault import Unprocessable, malformed
from berg.machinery.status import ApiError

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""what all `copy` operations of a patch may add together"""
_NONE = object()


def apply(doc: Any, patch: Any) -> Any:
    """`doc` with `patch`, a list of operations. Neither argument is changed. Raises ApiError 400, 413 or 422."""
    if isinstance(patch, list):
        patch = [{} if op is None else op for op in patch]
    if not isinstance(patch, list) or not all(isinstance(op, dict) for op in patch):
        kind = {dict: "object", str: "string", bool: "bool"}.get(type(patch), "number")
        if isinstance(patch, list):
            bad = next(op for op in patch if not isinstance(op, dict))
            kind = {list: "array", str: "string", bool: "bool"}.get(type(bad), "number")
            raise malformed(f"json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation")
        raise malformed(f"json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch")
    if len(patch) > MAX_OPERATIONS:
        raise ApiError(
            413,
            "RequestEntityTooLarge",
            "Request entity too large: "
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}",
        )
    root = [codec.clone(doc)]  # the document in a box, so that the whole of it can be replaced
    copied = 0
    try:
        for op in patch:
            kind = op.get("op")
            step = _STEPS.get(kind) if isinstance(kind, str) else None
            if step is None:
                raise Unprocessable(f"Unexpected kind: {kind if isinstance(kind, str) else 'unknown'}")
            copied += step(root, op) or 0
            if copied > MAX_COPIED_BYTES:
                raise Unprocessable(
                    f"Unable to complete the copy, the accumulated size increase of copy is {copied}, "
                    f"exceeding the limit {MAX_COPIED_BYTES}"
                )
        codec.check_depth(root[0])
    except (RecursionError, codec.SyntaxFault):
        raise Unprocessable("exceeded max depth") from None
    return root[0]


def _pointer(op: dict[str, Any], name: str, verb: str) -> str:
    path = op.get(name, _NONE)
    if not isinstance(path, str):
        raise Unprocessable(f"{verb} operation failed to decode {name}: missing value")
    return path


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _find(root: list[Any], path: str) -> tuple[Any, str]:
    """The container that `path` ends in, and the last key; (None, "") when there is none."""
    parts = path.split("/")
    if len(parts) < 2:
        return None, ""
    at = root[0]
    for part in parts[1:-1]:
        try:
            at = _get(at, _unescape(part))
        except (_Fault, TypeError):
            return None, ""
        if not isinstance(at, (dict, list)):
            return None, ""
    return at, _unescape(parts[-1])


class _Fault(Exception):
    pass


def _index(items: list[Any], key: str, length: int) -> int:
    try:
        index = int(key)
    except ValueError:
        raise _Fault(f'strconv.Atoi: parsing "{key}": invalid syntax') from None
    if index >= length or index < -length:
        raise _Fault(f"Unable to access invalid index: {index}: invalid index referenced")
    return index + length if index < 0 else index


def _get(container: Any, key: str) -> Any:
    """None when a key is missing; _Fault when an index is."""
    if isinstance(container, dict):
        return container.get(key)
    return container[_index(container, key, len(container))]


def _put(container: Any, key: str, value: Any) -> None:
    if isinstance(container, dict):
        container[key] = value
    elif key == "-":
        container.append(value)
    else:
        container.insert(_index(container, key, len(container) + 1), value)


def _drop(container: Any, key: str) -> None:
    if isinstance(container, dict):
        if key not in container:
            raise _Fault(f"Unable to remove nonexistent key: {key}: missing value")
        del container[key]
    else:
        del container[_index(container, key, len(container))]


def _value(op: dict[str, Any]) -> Any:
    return codec.clone(op.get("value"))


def _add(root: list[Any], op: dict[str, Any]) -> None:
    path = _pointer(op, "path", "add")
    container, key = _find(root, path)
    if container is None:
        raise Unprocessable(f'add operation does not apply: doc is missing path: "{path}": missing value')
    try:
        _put(container, key, _value(op))
    except _Fault as e:
        raise Unprocessable(f"error in add for path: '{path}': {e}") from None


def _remove(root: list[Any], op: dict[str, Any]) -> None:
    path = _pointer(op, "path", "remove")
    container, key = _find(root, path)
    if container is None:
        raise Unprocessable(f'remove operation does not apply: doc is missing path: "{path}": missing value')
    try:
        _drop(container, key)
    except _Fault as e:
        raise Unprocessable(f"error in remove for path: '{path}': {e}") from None


def _replace(root: list[Any], op: dict[str, Any]) -> None:
    path = _pointer(op, "path", "replace")
    if path == "":
        if not isinstance(op.get("value"), (dict, list)):
            raise Unprocessable("replace operation value must be object or array")
        root[0] = _value(op)
        return
    container, key = _find(root, path)
    if container is None:
        raise Unprocessable(f"replace operation does not apply: doc is missing path: {path}: missing value")
    if isinstance(container, dict):
        container[key] = _value(op)
        return
    try:
        container[_index(container, key, len(container))] = _value(op)
    except _Fault:
        raise Unprocessable(f"replace operation does not apply: doc is missing key: {path}: missing value") from None


def _test(root: list[Any], op: dict[str, Any]) -> None:
    path = _pointer(op, "path", "test")
    if path == "":
        found = root[0]
    else:
        container, key = _find(root, path)
        if container is None:
            raise Unprocessable(f"test operation does not apply: is missing path: {path}: missing value")
        try:
            found = _get(container, key)
        except _Fault as e:
            raise Unprocessable(f"error in test for path: '{path}': {e}") from None
    if not _equal(found, op.get("value")):
        raise Unprocessable(f"testing value {path} failed: test failed")


def _equal(a: Any, b: Any) -> bool:
    """JSON's equality: true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and bool(a == b)  # upstream compares how they are written: 1.0 is not 1


def _move(root: list[Any], op: dict[str, Any]) -> None:
    source, path = _pointer(op, "from", "move"), _pointer(op, "path", "move")
    container, key = _find(root, source)
    if container is None:
        raise Unprocessable(f"move operation does not apply: doc is missing from path: {source}: missing value")
    try:
        value = _get(container, key)
        _drop(container, key)
    except _Fault as e:
        raise Unprocessable(f"error in move for path: '{key}': {e}") from None
    target, key = _find(root, path)
    if target is None:
        raise Unprocessable(f"move operation does not apply: doc is missing destination path: {path}: missing value")
    try:
        _put(target, key, value)
    except _Fault as e:
        raise Unprocessable(f"error in move for path: '{path}': {e}") from None


def _copy(root: list[Any], op: dict[str, Any]) -> int:
    """Returns how many bytes it has added."""
    source, path = _pointer(op, "from", "copy"), _pointer(op, "path", "copy")
    container, key = _find(root, source)
    if container is None:
        raise Unprocessable(f"copy operation does not apply: doc is missing from path: {source}: missing value")
    try:
        value = codec.clone(_get(container, key))
    except _Fault as e:
        raise Unprocessable(f"error in copy for from: '{source}': {e}") from None
    target, key = _find(root, path)
    if target is None:
        raise Unprocessable(f"copy operation does not apply: doc is missing destination path: {path}: missing value")
    try:
        _put(target, key, value)
    except _Fault as e:
        raise Unprocessable(f"error while adding value during copy: {e}") from None
    return len(codec.check_depth(value))


_STEPS: dict[str, Callable[[list[Any], dict[str, Any]], int | None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "test": _test,
    "move": _move,
    "copy": _copy,
}
