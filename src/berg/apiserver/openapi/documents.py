"""Whole documents: v3 of one group version or of one path of discovery, v2 of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from berg.apiserver.openapi import custom as custom_routes
from berg.apiserver.openapi import nonresource
from berg.apiserver.openapi.operations import paths
from berg.apiserver.openapi.routes import Writer
from berg.apiserver.openapi.schemas import Schemas, in_v2, references
from berg.machinery import bundle
from berg.machinery import version as versions
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

Custom = Callable[[Resource, bool], "tuple[Obj, Obj] | None"]
"""(schema, list schema) of a custom resource, in what v2 can say or not; None for a built-in one"""

_INFO = {"title": "Kubernetes", "version": f"{versions.MAJOR}.{versions.MINOR}"}
_UNKNOWN_TO_CLIENTS = ("admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io")
"""groups that are not in the client library's scheme, with which upstream writes documents of custom resources"""
_TOKEN = {
    "BearerToken": {
        "type": "apiKey",
        "description": "Bearer Token authentication",
        "name": "authorization",
        "in": "header",
    }
}


def v3(name: str, resources: list[Resource], custom: Custom, *, cbor: bool = False) -> Obj:
    """`name`: `apis/apps/v1`, whose resources these are, or of a path beside resources."""
    places = {("", "v1"), *((r.group, r.version) for r in resources)}
    known = all(custom(r, False) is None for r in resources)
    schemas = Schemas(stands=lambda g, v: (g, v) in places if known else g not in _UNKNOWN_TO_CLIENTS)
    writer = Writer(schemas, cbor=cbor)
    found, _ = _paths(resources, writer, custom)
    if known:
        path, item = nonresource.item(name, writer)
        found[path] = item
    schemas.settle()
    shown = {"schemas": dict(sorted(schemas.found.items()))} if schemas.found else {}
    return {
        "openapi": "3.0.0",
        "info": _INFO if known else custom_routes.INFO,
        "paths": dict(sorted(found.items())),
        "components": {**shown, **({"securitySchemes": _TOKEN} if known else {})},
    }


def v2(resources: list[Resource], custom: Custom, remote: Iterable[Obj], *, cbor: bool = False) -> Obj:
    """`remote`: parts of aggregated servers' documents."""
    schemas = Schemas(v2=True)
    writer = Writer(schemas, cbor=cbor)
    found, own = _paths(resources, writer, custom)
    places = {r.root[1:]: None for r in own}
    for name in (*nonresource.names(list({r.group: None for r in own})), *places):
        path, item = nonresource.item(name, writer)
        found[path] = item
    schemas.settle()
    document: Obj = {"paths": found, "definitions": schemas.found, "parameters": writer.parameters}
    for part in remote:
        from berg.apiserver.aggregation import specs

        specs.merge(document, part)
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": dict(sorted(found.items())),
        "definitions": dict(sorted(schemas.found.items())),
        "parameters": dict(sorted(writer.parameters.items())),
        "securityDefinitions": _TOKEN,
        "security": [{"BearerToken": []}],
    }


def _paths(resources: list[Resource], writer: Writer, custom: Custom) -> tuple[Obj, list[Resource]]:
    """Path → path item; which of the resources are built in."""
    schemas = writer.schemas
    found: Obj = {}
    own: list[Resource] = []
    for r in resources:
        given = custom(r, schemas.v2)
        if given is None:
            found.update(paths(r, _kind_name, writer))
            own.append(r)
            continue
        name = custom_routes.custom_name(r)
        names = (name, f"{name.removesuffix(r.kind)}{r.list_kind}")
        for name, one in zip(names, given, strict=True):
            schemas.found[name] = in_v2(one) if schemas.v2 else one
            for inner in references(one):
                schemas.ref(inner)
        found.update(custom_routes.paths(r, writer))
    return found, own


@cache
def _kind_name(group: str, version: str, kind: str) -> str | None:
    row = bundle.kind_index().get((group, version, kind))
    return None if row is None else str(bundle.type_rows()[row][0])
