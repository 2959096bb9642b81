"""From a request's body to an object in the storage version: decoded, checked for unknown fields, made canonical,
defaulted.

Source: k8s.io/apiserver pkg/endpoints/handlers (create.go, update.go, rest.go).
"""

from __future__ import annotations

import json
from typing import Any

from berg.apiserver.http.message import Request
from berg.apiserver.registry import negotiation
from berg.apiserver.registry.registry import Registry
from berg.machinery import schema, status
from berg.machinery.codec import json as json_codec
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj

IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"


def parse_body(
    request: Request, kind: str, media_types: tuple[str, ...] = negotiation.MEDIA_TYPES
) -> tuple[Any, list[str]]:
    """The body as an object, and what strict reading found. Raises ApiError."""
    media = negotiation.body_media_type(request, media_types)
    body = request.body
    if media == negotiation.CBOR:
        from berg.machinery.codec import cbor

        try:
            return cbor.loads(body), []
        except ValueError as e:
            raise unrecognized(kind, f"unable to determine group/version/kind: {e}", body) from None
    if media == negotiation.PROTOBUF:
        from berg.machinery.codec import protobuf

        try:
            return protobuf.loads(body), []
        except ValueError as e:
            raise unrecognized(kind, e, body) from None
    is_yaml = False
    try:
        if media == negotiation.YAML or (body[:1] not in b"{[ \n\t\r" and "content-type" not in request.headers):
            from berg.machinery.codec import yaml as yaml_codec

            is_yaml = True
            parsed, faults = yaml_codec.loads_strict(body)
        else:
            parsed, faults = json_codec.loads_strict(body)
    except ValueError as e:
        raise unrecognized(kind, e if is_yaml else f"{_NO_KIND}{e}", body) from None
    return ({} if parsed is None else parsed), faults


_NO_KIND = "couldn't get version/kind; json parse error: "
_HEAD = (
    'Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
    'Kind string "json:\\"kind,omitempty\\"" }'
)
"""what upstream reads kind and version into"""


def unrecognized(kind: str, error: object, body: bytes) -> ApiError:
    if kind == "DeleteOptions":
        return status.bad_request(str(error))
    if not body:
        summary = "<empty>"
    else:
        summary = body[:30].decode("utf-8", "replace") if body[:1] == b"{" else body[:30].hex()
        summary += " ..." if len(body) > 30 else ""
    return status.bad_request(f"the object provided is unrecognized (must be of type {kind}): {error} ({summary})")


def decode(
    request: Request,
    registry: Registry,
    resource: Resource,
    mode: str,
    warnings: list[str],
) -> Obj:
    """The body as an object of the resource, in the storage version."""
    obj, faults = parse_body(request, resource.kind, registry.media_types)
    if registry.custom:
        from berg.apiserver.crd import type_meta

        type_meta.check(obj, resource, request.body)
    check_kind(obj, resource, request.body)
    if faults and not registry.custom:
        obj, faults = _decoded_twice(request, registry, resource, obj, faults)
    try:
        return canonical(registry, obj, resource, mode=mode, warnings=warnings, faults=faults, in_order=True)
    except ApiError as e:
        if "cannot unmarshal number " not in e.message or request.body[:1] != b"{":
            raise
    obj = json.loads(request.body, parse_float=_AsWritten)  # for the words alone, which show the number as it stands
    check_kind(obj, resource, request.body)
    return canonical(registry, obj, resource, mode=mode, warnings=warnings, faults=faults, in_order=True)


class _AsWritten(float):
    """A number that shows itself as it stood in the text."""

    text: str

    def __new__(cls, text: str) -> _AsWritten:
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


def _decoded_twice(
    request: Request, registry: Registry, resource: Resource, obj: Obj, faults: list[str]
) -> tuple[Obj, list[str]]:
    """A body with keys that stand twice: the later ones were decoded on top of the earlier ones."""
    type_ = registry.type_of(resource)
    body = request.body.lstrip()
    if type_ is None or body[:1] != b"{":
        return obj, faults
    from berg.machinery.codec import duplicates

    try:
        found, faults = duplicates.typed(body, type_)
    except ValueError:  # YAML
        return obj, faults
    check_kind(found, resource, request.body)
    return found, faults


def check_kind(obj: Any, resource: Resource, body: bytes = b"") -> None:
    """Fills in a missing kind and apiVersion; refuses another one."""
    if not isinstance(obj, dict):
        raise unrecognized(resource.kind, no_kind(obj), body)
    for field in ("apiVersion", "kind"):
        if (why := no_text(obj, field)) is not None:
            raise unrecognized(resource.kind, why, body)
    if "kind" not in obj or "apiVersion" not in obj:
        told_otherwise(obj)
    kind, version = obj.get("kind") or resource.kind, obj.get("apiVersion") or resource.api_version
    if version.startswith("/"):
        version = version[1:]  # an empty group and a version
    if kind != resource.kind:
        raise _another_kind(resource, kind, version)
    if version != resource.api_version and _is_known(resource.api_version, kind) and not _is_known(version, kind):
        raise _unregistered(f'{kind} in version "{version.rpartition("/")[2]}"', resource, kind, version)
    if version != resource.api_version:
        raise another_version(version, resource)
    obj["kind"], obj["apiVersion"] = kind, version
    meta = obj.get("metadata")
    if meta is None:
        obj["metadata"] = {}


def another_version(version: str, resource: Resource) -> ApiError:
    return status.bad_request(
        f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
    )


def told_otherwise(obj: Obj) -> None:
    """Upstream finds out what an object is with a decoder that does not look at the case of keys."""
    for key in [k for k in obj if k.lower() in ("kind", "apiversion") and k not in ("kind", "apiVersion")]:
        name = "kind" if key.lower() == "kind" else "apiVersion"
        if isinstance(obj[key], str):
            obj.setdefault(name, obj[key])


def no_kind(value: object) -> str:
    """Why something that is no object has no kind."""
    return f"{_NO_KIND}json: cannot unmarshal {go_kind(value)} into {_HEAD}"


def no_text(obj: Obj, field: str) -> str | None:
    """Why a kind or version of another type is none."""
    value = obj.get(field)
    if isinstance(value, str | None):
        return None
    return f"{_NO_KIND}json: cannot unmarshal {go_kind(value)} into Go struct field .{field} of type string"


def go_kind(value: object) -> str:
    """What encoding/json calls it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _another_kind(resource: Resource, kind: str, version: str) -> ApiError:
    v = version.rpartition("/")[2]
    given = f'{kind} in version "{v}"'
    if not _is_known(version, kind):
        return _unregistered(given, resource, kind, version)
    internal = resource.group.partition(".")[0] or "core"
    return status.bad_request(
        f"{given} cannot be handled as a {resource.kind}: converting ({v}.{kind}) to ({internal}.{resource.kind}): "
        "unknown conversion"
    )


def _is_known(version: str, kind: str) -> bool:
    group, _, v = version.rpartition("/")
    return schema.type_of(group, v, kind) is not None


def _unregistered(given: str, resource: Resource, kind: str, version: str) -> ApiError:
    why = f'no kind "{kind}" is registered for version "{version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    return status.bad_request(f"{given} cannot be handled as a {resource.kind}: {why}")


def canonical(
    registry: Registry,
    obj: Obj,
    resource: Resource,
    *,
    mode: str = IGNORE,
    warnings: list[str] | None = None,
    faults: list[str] | None = None,
    in_order: bool = False,
) -> Obj:
    """Takes `obj` over: types checked, unknown fields dropped (or refused, or warned of), defaults filled in,
    converted to the storage version. `in_order`: what is wrong is told in the order in which it stands in `obj`,
    not first what the parser found. Raises ApiError 400."""
    found = list(faults or ())
    if registry.custom:
        from berg.apiserver.crd import decoding as custom

        found += custom.canonical(registry, obj, resource)
    else:
        type_ = schema.type_of(resource.group, resource.version, resource.kind)
        if type_ is not None:
            try:
                places = _places(obj) if found and in_order else {}
                found += [f'unknown field "{path}"' for path in schema.decode(type_, obj)]
            except schema.WrongType as e:
                raise cannot_handle(resource, str(e)) from None
            if places:
                found.sort(key=lambda fault: places.get(fault.partition('"')[2].rstrip('"'), -1))
    if found and mode == STRICT:
        raise cannot_handle(resource, "strict decoding error: " + ", ".join(found))
    if found and mode == WARN and warnings is not None:
        warnings.extend(found)
    if not registry.custom:
        registry.to_storage(obj, resource)
        registry.strategy.default(obj)
    return obj


def as_kind(
    obj: Obj, kind: Resource, *, mode: str = IGNORE, warnings: list[str] | None = None, faults: list[str] | None = None
) -> Obj:
    """Takes over what is written as another kind than its resource's, a Scale: types checked, unknown fields told of.
    Raises ApiError 400."""
    type_ = schema.type_of(kind.group, kind.version, kind.kind)
    assert type_ is not None
    found = list(faults or ())
    try:
        found += [f'unknown field "{path}"' for path in schema.decode(type_, obj)]
    except schema.WrongType as e:
        raise cannot_handle(kind, str(e)) from None
    if found and mode == STRICT:
        raise cannot_handle(kind, "strict decoding error: " + ", ".join(found))
    if found and mode == WARN and warnings is not None:
        warnings.extend(found)
    return obj


def _places(obj: Any) -> dict[str, int]:
    """Paths of all fields → their order in the document."""
    found: dict[str, int] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                below = f"{path}.{key}" if path else key
                found[below] = len(found)
                walk(inner, below)
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                walk(inner, f"{path}[{i}]")

    walk(obj, "")
    return found


def cannot_handle(resource: Resource, why: str) -> ApiError:
    return status.bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'
    )


_OTHER_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"


def check_name(obj: Obj, name: str, namespace: str) -> None:
    """What the object is called must be what the URL says."""
    meta = obj["metadata"]
    own = meta.get("name") or ""
    if not own:
        raise status.bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if own != name:
        raise status.bad_request(f"the name of the object ({own}) does not match the name on the URL ({name})")
    own_namespace = meta.get("namespace") or ""
    if namespace and own_namespace and own_namespace != namespace:
        raise status.bad_request(_OTHER_NAMESPACE)


def match_namespace(obj: Obj, namespace: str) -> None:
    """The object lives where the request says; a different wish is refused."""
    meta = obj["metadata"]
    own = meta.get("namespace") or ""
    if own == namespace:
        return
    if not own:
        meta["namespace"] = namespace
        return
    raise status.bad_request(_OTHER_NAMESPACE)
