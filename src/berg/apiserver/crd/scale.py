"""The scale of a custom resource: where its definition says that replicas and selector stand.

Source: k8s.io/apiextensions-apiserver pkg/registry/customresource/etcd.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from berg.apiserver.registry.views import Scale
from berg.machinery import status
from berg.machinery.status import ApiError, FieldError, Obj

_NOT_A_SCALE = (
    'no kind is registered for the type v1.Scale in scheme "k8s.io/apiextensions-apiserver/pkg/apiserver/'
    'customresource_handler.go:781"'
)
_MISSING = object()


class CustomScale(Scale):
    """Raises ApiError where something else stands than what belongs there."""

    def __init__(self, paths: Obj) -> None:
        self.paths = paths
        super().__init__(paths["specReplicasPath"], paths["statusReplicasPath"], paths.get("labelSelectorPath") or "")

    def show(self, obj: Obj) -> Obj:
        if _found(obj, self.spec_path, int) is _MISSING:
            path = self.paths["specReplicasPath"]
            raise status.internal_error(f'the spec replicas field "{path}" does not exist')
        return self.before(obj)

    def before(self, obj: Obj) -> Obj:
        """Nothing said counts as none."""
        replicas = _found(obj, self.spec_path, int)
        state: Obj = {"replicas": _int32(_found(obj, self.status_path, int))}
        if self.selector_path and (selector := _found(obj, self.selector_path, str)) not in (_MISSING, ""):
            state["selector"] = selector
        shown = super().show({"metadata": obj["metadata"]})
        count = _int32(replicas)
        return {**shown, "spec": {"replicas": count} if count else {}, "status": state}

    def put(self, current: Obj, given: Obj) -> Obj:
        replicas = (given.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise status.bad_request(_NOT_A_SCALE)
        meta = given.get("metadata") or {}
        for field in ("uid", "resourceVersion"):
            if meta.get(field):
                current["metadata"][field] = meta[field]
        target: Any = current
        for i, step in enumerate(self.spec_path[:-1]):
            target = target.setdefault(step, {})
            if not isinstance(target, dict):
                path = "." + ".".join(self.spec_path[: i + 1])
                why = f"value cannot be set because {path} is not a map[string]interface{{}}"
                raise ApiError(500, "", why)
        target[self.spec_path[-1]] = replicas
        return current


class _Wrong(ValueError):
    """Another type stands there."""


def _found(obj: Any, path: list[str], kind: type) -> Any:
    """What stands at the path, or `_MISSING`. Raises ApiError."""
    try:
        return _nested(obj, path, kind)
    except _Wrong as e:
        raise ApiError(500, "", str(e)) from None


def _nested(obj: Any, path: list[str], kind: type) -> Any:
    for i, step in enumerate(path):
        if obj is None:
            return _MISSING
        if not isinstance(obj, dict):
            raise _wrong(path[: i + 1], obj, "map[string]interface{}")
        if step not in obj:
            return _MISSING
        obj = obj[step]
    if not isinstance(obj, kind) or isinstance(obj, bool):
        raise _wrong(path, obj, "int64" if kind is int else "string")
    return obj


def _wrong(path: list[str], value: Any, wanted: str) -> _Wrong:
    shown = go_format(value)
    return _Wrong(
        f".{'.'.join(path)} accessor error: {shown} is of the type {GO_TYPES[type(value)]}, expected {wanted}"
    )


GO_TYPES = {
    type(None): "<nil>",
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def go_format(value: Any) -> str:
    """As Go prints a value with %v."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return str(value).lower()
        case list():
            return f"[{' '.join(map(go_format, value))}]"
        case dict():
            return f"map[{' '.join(f'{k}:{go_format(value[k])}' for k in sorted(value))}]"
    return str(value)


def _int32(value: Any) -> int:
    return 0 if value is _MISSING else (value + 2**31) % 2**32 - 2**31


def faults(paths: Obj | None, obj: Obj, *, spec: bool = True) -> Iterator[FieldError]:
    """Of what stands where the definition says that replicas and selector are. `spec`: also of the spec."""
    if not paths:
        return
    for key in ("specReplicasPath", "statusReplicasPath") if spec else ("statusReplicasPath",):
        yield from _count(obj, paths[key])
    if selector := paths.get("labelSelectorPath"):
        try:
            _nested(obj, _steps(selector), str)
        except _Wrong as e:
            yield status.invalid_value(selector, "", str(e))


def _count(obj: Obj, path: str) -> Iterator[FieldError]:
    try:
        count = _nested(obj, _steps(path), int)
    except _Wrong as e:
        yield status.invalid_value(path, 0, str(e))
        return
    if count is _MISSING:
        return
    if count < 0:
        yield status.invalid_value(path, count, "should be a non-negative integer")
    elif count > _MOST:
        yield status.invalid_value(path, count, f"should be less than or equal to {_MOST}")


_MOST = 2**31 - 1


def _steps(path: str) -> list[str]:
    return path.removeprefix(".").split(".")
