"""What a mutating policy's expression makes of an object: an apply configuration merged into it, or a JSON patch.

Source: k8s.io/apiserver pkg/admission/plugin/policy/mutating/patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from berg.apiserver.admission.conditions import Fault, Scope
from berg.machinery.patch import checking, merging
from berg.machinery.patch import json as json_patch
from berg.machinery.patch.fault import Unprocessable
from berg.machinery.status import ApiError, Obj
from berg.machinery.typedef import Field, TypeDef


def mutated(mutation: Obj, scope: Scope, obj: Obj, type_: TypeDef | None) -> Obj:
    """Raises Fault."""
    if mutation.get("patchType") == "JSONPatch":
        return _json_patched(mutation["jsonPatch"]["expression"], scope, obj)
    return _applied(mutation["applyConfiguration"]["expression"], scope, obj, type_)


def _plain(value: Any) -> Any:
    from berg.machinery.cel.values import plain

    return plain(value)


def _json_patched(text: str, scope: Scope, obj: Obj) -> Obj:
    operations = _plain(scope.evaluate(text, mutating=True))
    if not isinstance(operations, list):
        raise Fault("type mismatch: JSONPatchType.expression should evaluate to array")
    try:
        patched = json_patch.apply(obj, operations)
    except Unprocessable as e:
        if e.why.endswith("test failed"):  # the patch is not for this object
            return obj
        raise Fault(f"JSON Patch: {e.why}") from None
    except ApiError as e:
        raise Fault(f"JSON Patch: {e.message}") from None
    if not isinstance(patched, dict):
        raise Fault("JSON Patch: the patched object is not an object")
    return patched


def _applied(text: str, scope: Scope, obj: Obj, type_: TypeDef | None) -> Obj:
    config = _plain(scope.evaluate(text, mutating=True))
    if not isinstance(config, dict):
        raise Fault(f"unsupported return type from ApplyConfiguration expression: {type(config).__name__}")
    if type_ is None:
        return _plain_merge(obj, config)
    if wrong := checking.faults(type_, config):
        told = wrong[0] if len(wrong) == 1 else "errors:\n" + "\n".join(f"  {w}" for w in wrong)
        raise Fault(f"error applying patch: failed to convert patch object to typed object: {told}")
    if atomic := ", ".join(_atomics(type_, config, "")):
        raise Fault(
            f"error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomic}"
        )
    return merging.merge(type_, obj, config)


def _atomics(type_: TypeDef, config: Obj, path: str) -> Iterator[str]:
    for key, value in config.items():
        field = type_.fields.get(key)
        if field is not None:
            yield from _atomic(field, value, f"{path}.{key}")


def _atomic(field: Field, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        if (getattr(field, "list_type", "") or "atomic") == "atomic":
            yield path
            return
        item = field.item
        for i, element in enumerate(value):
            if item is not None:
                yield from _atomic(item, element, f"{path}[{i}]")
    elif isinstance(value, dict):
        if getattr(field, "map_type", "") == "atomic":
            yield path
        elif field.struct is not None:
            yield from _atomics(field.struct, value, path)


def _plain_merge(obj: Obj, config: Obj) -> Obj:
    merged = dict(obj)
    for key, value in config.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _plain_merge(old, value) if both and old is not None else value
    return merged
