"""Kind and apiVersion of a custom resource's body. Nothing is known of them but what the body says: without them it
is nothing, and another kind of the right version is an object that is invalid.

Source: k8s.io/apimachinery unstructured (UnstructuredJSONScheme), k8s.io/apiextensions-apiserver
pkg/registry/customresource (ValidateTypeMeta).
"""

from __future__ import annotations

import orjson

from berg.apiserver.registry import decoding
from berg.machinery import status
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj


def check(obj: object, resource: Resource, body: bytes) -> None:
    """Of what was sent whole. Raises ApiError."""
    if isinstance(obj, dict) and obj.get("kind") == resource.kind and obj.get("apiVersion") == resource.api_version:
        return
    if (why := _nothing(obj, body)) is not None:
        raise decoding.unrecognized(resource.kind, why, body)
    assert isinstance(obj, dict)
    version = obj.get("apiVersion") or ""
    if "apiVersion" in obj and obj["apiVersion"] is None:
        why = ".apiVersion accessor error: <nil> is of the type <nil>, expected string"
        raise status.bad_request(f'{obj["kind"]} in version "" cannot be handled as a {resource.kind}: {why}')
    if version != resource.api_version:
        raise decoding.another_version(version, resource)
    raise _invalid(obj, resource)


def check_patched(obj: object, resource: Resource) -> None:
    """Of what a patch made. Raises ApiError, 400 for what cannot be decoded."""
    if isinstance(obj, dict) and obj.get("kind") == resource.kind and obj.get("apiVersion") == resource.api_version:
        return
    if (why := _nothing(obj, b"")) is not None:
        raise status.bad_request(why)
    assert isinstance(obj, dict)
    if not obj.get("apiVersion"):
        raise status.internal_error("Object 'apiVersion' is missing in 'object has no apiVersion field'")
    raise _invalid(obj, resource)


def _nothing(obj: object, body: bytes) -> str | None:
    """Why it has no kind."""
    if not isinstance(obj, dict):
        return decoding.no_kind(obj)
    for field in ("apiVersion", "kind"):
        if (why := decoding.no_text(obj, field)) is not None:
            return why
    decoding.told_otherwise(obj)
    if obj.get("kind"):
        return None
    text = body if body[:1] == b"{" else orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    return f"Object 'Kind' is missing in '{text.decode('utf-8', 'replace')}'"


def _invalid(obj: Obj, resource: Resource) -> ApiError:
    kind, version = obj["kind"], obj["apiVersion"]
    errors = []
    if kind != resource.kind:
        errors.append(status.invalid_value("kind", kind, f"must be {resource.kind}"))
    if version != resource.api_version:
        errors.append(status.invalid_value("apiVersion", version, f"must be {resource.api_version}"))
    meta = obj.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else ""
    return status.invalid(version.rpartition("/")[0], kind, name if isinstance(name, str) else "", errors)
