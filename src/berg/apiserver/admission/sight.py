"""A request as webhooks and policies see it: in the version they asked for, with its namespace, as an AdmissionRequest.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/{predicates,request}, pkg/admission/conversion.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from berg.apiserver.admission.interface import Api, Attributes
from berg.apiserver.registry import conversion
from berg.machinery import schema, status
from berg.machinery.resources import Resource, builtin, resource
from berg.machinery.status import ApiError, Obj

Kind = tuple[str, str, str]

_CONFIGURATION = frozenset(
    f"{plural}.admissionregistration.k8s.io"
    for plural in (
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    )
)
_REVIEWS = frozenset(
    {
        "selfsubjectreviews.authentication.k8s.io",
        "tokenreviews.authentication.k8s.io",
        "localsubjectaccessreviews.authorization.k8s.io",
        "selfsubjectaccessreviews.authorization.k8s.io",
        "selfsubjectrulesreviews.authorization.k8s.io",
        "subjectaccessreviews.authorization.k8s.io",
    }
)
_NAMESPACES = resource("namespaces")


def is_configuration(a: Attributes) -> bool:
    """Webhooks and policies have no say about webhooks and policies."""
    return a.resource.group_resource in _CONFIGURATION


def is_review(a: Attributes) -> bool:
    return a.resource.group_resource in _REVIEWS


def requested(a: Attributes) -> Resource:
    return a.requested or a.resource


def namespace_of(a: Attributes) -> str:
    """A namespace is looked at as if it were in itself."""
    return a.name if a.resource.group_resource == "namespaces" else a.namespace


def namespace_object(api: Api, a: Attributes) -> Obj | None:
    return api.get(_NAMESPACES, "", a.namespace) if a.namespace and a.resource.namespaced else None


def versions(api: Api, r: Resource) -> list[Resource]:
    """The resource in each of its served versions, and what is the same under another group."""
    registries: Mapping[tuple[str, str], Any] = getattr(api, "registries", {})
    registry = registries.get((r.group, r.plural))
    if registry is not None:
        return list(registry.versions.values())
    return [v for v in builtin().all if (v.group, v.plural) == (r.group, r.plural)]


def by_kind(api: Api, group: str, version: str, kind: str) -> Resource | None:
    found = builtin().by_kind(group, version, kind)
    if found is not None:
        return found
    registries: Mapping[tuple[str, str], Any] = getattr(api, "registries", {})
    for registry in registries.values():
        for v in registry.versions.values():
            if (v.group, v.version, v.kind) == (group, version, kind):
                found = v
    return found


class Sight:
    """`objects(target)` are copies; what is taken back by `take` becomes the request's object."""

    __slots__ = ("_cached", "a", "api")

    def __init__(self, api: Api, a: Attributes) -> None:
        self.api = api
        self.a = a
        self._cached: dict[str, tuple[Obj | None, Obj | None]] = {}

    def kind(self, target: Resource) -> Kind:
        return self.a.subresource_kind or (target.group, target.version, target.kind)

    async def objects(self, target: Resource) -> tuple[Obj | None, Obj | None]:
        """(object, old object) in the version of `target`."""
        found = self._cached.get(target.api_version)
        if found is None:
            found = self._cached[target.api_version] = (
                await self._converted(self.a.obj, target),
                await self._converted(self.a.old, target),
            )
        return found

    async def _converted(self, obj: Obj | None, target: Resource) -> Obj | None:
        if obj is None:
            return None
        copy: Obj = orjson.loads(orjson.dumps(obj))
        if self.a.subresource_kind is not None:
            group, version, kind = self.a.subresource_kind
            return {"apiVersion": f"{group}/{version}" if group else version, "kind": kind, **copy}
        registry = getattr(self.api, "registries", {}).get((self.a.resource.group, self.a.resource.plural))
        if registry is not None:
            try:
                return dict((await registry.many_to_version([copy], target))[0])
            except ApiError as e:
                if e.reason:
                    raise
                raise status.internal_error(e.message) from None  # a conversion webhook that failed
        return conversion.convert(copy, self.a.resource, target)

    async def take(self, obj: Obj, source: Resource) -> None:
        """Makes `obj`, of the version of `source`, the request's object, its defaults filled in."""
        a = self.a
        assert a.obj is not None
        registry = getattr(self.api, "registries", {}).get((a.resource.group, a.resource.plural))
        if a.subresource_kind is None and registry is not None and registry.custom:
            _check_custom(obj, source)
            own = registry.versions.get(a.obj.get("apiVersion"), a.resource)  # the version it is worked on in
            if source.api_version != own.api_version:
                obj = (await registry.many_to_version([obj], own))[0]
            version = (obj.get("apiVersion") or "").rpartition("/")[2]
            type_ = registry.custom_types.get(version) or registry.custom_types[a.resource.version]
            schema.prune(type_, obj)
            schema.drop_nulls(type_, obj)
            schema.default(type_, obj)
        else:
            _decode(obj, self.kind(source))
        if a.subresource_kind is None and not (registry is not None and registry.custom):
            if source.api_version != a.resource.api_version:
                conversion.convert(obj, source, a.resource)
            self.api.strategy(a.resource).default(obj)
        a.obj.clear()
        a.obj.update(obj)
        self._cached.clear()

    def request(self, target: Resource, uid: str) -> Obj:
        """The AdmissionRequest but for its objects."""
        a = self.a
        own = requested(a)
        found: Obj = {
            "uid": uid,
            "kind": _named("kind", *self.kind(target)),
            "resource": _named("resource", target.group, target.version, target.plural),
            "requestKind": _named("kind", *self.kind(own)),
            "requestResource": _named("resource", own.group, own.version, own.plural),
            "operation": a.operation,
            "userInfo": _user(a),
            "dryRun": a.dry_run,
            "options": a.options or None,
        }
        if a.subresource:
            found["subResource"] = found["requestSubResource"] = a.subresource
        if a.name:
            found["name"] = a.name
        if namespace := namespace_of(a):
            found["namespace"] = namespace
        return found


def _decode(obj: Obj, wanted: Kind) -> None:
    """What a patch has made of an object of a built-in kind, in place. Raises InternalError."""
    group, version, kind = wanted
    own = f"{group}/{version}" if group else version
    given = obj.get("apiVersion") or own
    given_kind = obj.get("kind") or kind
    given_group, _, given_version = given.rpartition("/")
    type_ = schema.type_of(given_group, given_version, given_kind)
    if type_ is None and (given, given_kind) != (own, kind):
        where = 'in scheme "pkg/api/legacyscheme/scheme.go:30"'
        raise status.internal_error(f'no kind "{given_kind}" is registered for version "{given}" {where}')
    if type_ is not None:
        try:
            schema.decode(type_, obj)
        except schema.WrongType as e:
            raise status.internal_error(str(e)) from None
    if (given, given_kind) != (own, kind):
        names = f"({given_version}.{given_kind}) to ({version}.{kind})"
        raise status.internal_error(f"converting {names}: unknown conversion")
    obj["apiVersion"], obj["kind"] = own, kind
    _metadata(obj)


def _check_custom(obj: Obj, wanted: Resource) -> None:
    """What a patch has made of a custom resource, in place. Raises ApiError."""
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if not kind:
        raise status.internal_error(f"Object 'Kind' is missing in '{orjson.dumps(obj).decode()}'")
    if version != wanted.api_version:
        why = f'is unstructured and is not suitable for converting to "{wanted.api_version}"'
        raise ApiError(500, "", f"{version}, Kind={kind} {why}")
    meta = _metadata(obj)
    if kind != wanted.kind:
        fault = status.invalid_value("kind", kind, f"must be {wanted.kind}")
        raise status.invalid(wanted.group, str(kind), str(meta.get("name") or ""), [fault])
    type_ = schema.type_of("", "v1", "ConfigMap")  # metadata is of the same type everywhere
    assert type_ is not None
    for field in list(meta):  # what is of no use is not taken
        try:
            schema.decode(type_, {"metadata": {field: meta[field]}})
        except schema.WrongType:
            del meta[field]


def _metadata(obj: Obj) -> Obj:
    if not isinstance(obj.get("metadata"), dict):
        obj["metadata"] = {}
    found: Obj = obj["metadata"]
    return found


def _named(what: str, group: str, version: str, name: str) -> Obj:
    return {"group": group, "version": version, what: name}


def _user(a: Attributes) -> Obj:
    user = a.user
    found: Obj = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        found["uid"] = user.uid
    if user.extra:
        found["extra"] = {k: list(v) for k, v in user.extra.items()}
    return found
