"""`/openapi/v2` and `/openapi/v3`: each document made when it is first asked for, then kept as bytes.

Every v3 document stands under a URL with its hash, so that clients may keep it for ever. The hash is made from what
the document is made from, so it is known before anybody has asked for the document; it changes for a group version
only when that group version does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

import berg
from berg.apiserver import version as versions
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import negotiation
from berg.machinery import bundle, schema, status
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.openapi.schemas import Schemas

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ALWAYS = (f"{_META}DeleteOptions", f"{_META}Status", f"{_META}ObjectMeta", f"{_META}ListMeta")
_MERGED = {"v2", "v2pb", "v3"}
"""documents of everything that is served"""
_A_YEAR_S = 365 * 86400
_SECURITY: Obj = {
    "securityDefinitions": {
        "BearerToken": {
            "description": "Bearer Token authentication",
            "type": "apiKey",
            "name": "authorization",
            "in": "header",
        }
    },
    "security": [{"BearerToken": []}],
}
_EXTRA: dict[str, Obj] = {f"{_META}Patch": {"type": "object"}}

Custom = Callable[[Resource, bool], "tuple[Obj, Obj] | None"]
"""(schema, list schema) of a custom resource, in what v2 can say or not; None for a built-in one"""


@dataclass(slots=True, frozen=True)
class Document:
    """An aggregated server's document, and where it says that it is."""

    url: str
    body: bytes

    @property
    def digest(self) -> str:
        return self.url.partition("hash=")[2] or hashlib.sha512(self.body).hexdigest().upper()


@cache
def _kind_name(group: str, version: str, kind: str) -> str | None:
    row = bundle.kind_index().get((group, version, kind))
    return None if row is None else str(bundle.type_rows()[row][0])


class OpenAPI:
    def __init__(self, resources: Callable[[], list[Resource]]) -> None:
        self._resources = resources
        self.custom: Custom = lambda r, v2: None
        self.remote: Callable[[], dict[str, Document]] = dict
        """group version path → v3 document of an aggregated server"""
        self.remote_v2: Callable[[], list[Obj]] = list
        """parts of aggregated servers' v2 documents"""
        self._documents: dict[str, tuple[bytes, str]] = {}
        """name → document, the hash of what it was made from"""
        self._digests: dict[str, str] | None = None
        """group version path → hash of what its document is made from; None: to be found out"""

    def changed(self, group_version: str = "") -> None:
        self._digests = None
        for merged in _MERGED:
            self._documents.pop(merged, None)

    def handle(self, request: Request) -> Response | None:
        path = request.path
        if path == "/openapi/v2":
            return self._answer_v2(request)
        if path == "/openapi/v3":
            return self._answer(request, "v3", self._index)
        if path.startswith("/openapi/v3/"):
            return self._answer_v3(request, path.removeprefix("/openapi/v3/"))
        return None

    def _answer_v3(self, request: Request, name: str) -> Response:
        digest = self._all_digests().get(name)
        if digest is None:
            return Response(404, b"", "")
        accept = request.headers.get("accept") or "*/*"
        if not any(m in ("application/json", "*/*", "application/*") for m, _ in negotiation.parse_accept(accept)):
            return Response(406, b"", "")
        asked = request.arg("hash")
        if asked and asked != digest:
            headers = {"ETag": f'"{digest}"', "Vary": "Accept", "Location": f"{request.path}?hash={digest}"}
            return Response(301, b"", "application/json", headers)
        remote = self.remote().get(name)
        response = self._answer(request, name, lambda: self._v3(name) if remote is None else remote.body, digest)
        if asked:
            response.headers["Cache-Control"] = "public, immutable"
            response.headers["Expires"] = formatdate(time.time() + _A_YEAR_S, usegmt=True)
        return response

    def _answer_v2(self, request: Request) -> Response:
        """JSON, or the protobuf that client-go asks for first."""
        from berg.apiserver.openapi import gnostic

        for media, _ in negotiation.parse_accept(request.headers.get("accept") or "*/*"):
            if media == gnostic.MEDIA_TYPE:
                response = self._answer(request, "v2pb", lambda: gnostic.encode(_plain(self._v2())))
                response.content_type = gnostic.ANSWER_TYPE
                return response
            if media in ("application/json", "*/*", "application/*"):
                return self._answer(request, "v2", self._v2)
        raise status.not_acceptable(["application/json", gnostic.MEDIA_TYPE])

    def _answer(
        self, request: Request, name: str, make: Callable[[], Obj | bytes], digest: str | None = None
    ) -> Response:
        """`digest`: of what the document is made from, where that is not the document itself."""
        found = self._documents.get(name)
        if found is None or (digest is not None and found[1] != digest):
            made = make()
            body = made if isinstance(made, bytes) else orjson.dumps(made)
            found = self._documents[name] = (body, digest or hashlib.sha512(body).hexdigest().upper())
        body, digest = found
        etag = f'"{digest}"'
        headers = {"ETag": etag, "Vary": "Accept"}
        if request.headers.get("if-none-match") == etag:
            return Response(304, b"", "", headers)
        response = Response(200, body, headers=headers)
        negotiation.compress(request, response)
        return response

    # ---- documents

    def _group_versions(self) -> dict[str, list[Resource]]:
        """`apis/apps/v1` → its resources."""
        found: dict[str, list[Resource]] = {}
        for r in self._resources():
            found.setdefault(r.root[1:], []).append(r)
        return found

    def _index(self) -> Obj:
        listed = self._all_digests().items()
        return {"paths": {n: {"serverRelativeURL": f"/openapi/v3/{n}?hash={digest}"} for n, digest in listed}}

    def _all_digests(self) -> dict[str, str]:
        if self._digests is None:
            self._digests = {}
            for name, resources in self._group_versions().items():
                seed = hashlib.sha512(f"{berg.__version__}/{versions.GIT_VERSION}/{name}".encode())
                for r in resources:
                    custom = self.custom(r, False)
                    seed.update(repr(r).encode() + (b"" if custom is None else orjson.dumps(custom)))
                self._digests[name] = seed.hexdigest().upper()
            self._digests.update({name: document.digest for name, document in self.remote().items()})
            for gone in set(self._documents) - set(self._digests) - _MERGED:
                del self._documents[gone]
        return self._digests

    def _v3(self, name: str) -> Obj:
        from berg.apiserver.openapi.schemas import Schemas

        schemas = Schemas("#/components/schemas/")
        document: Obj = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": versions.GIT_VERSION},
            "paths": self._paths(self._group_versions()[name], schemas),
            "components": {"schemas": schemas.found},
        }
        document["components"]["schemas"] = dict(sorted(schemas.found.items()))
        return document

    def _v2(self) -> Obj:
        from berg.apiserver.openapi.schemas import Schemas

        schemas = Schemas("#/definitions/")
        every = self._paths(self._resources(), schemas)
        document: Obj = {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": versions.GIT_VERSION},
            "paths": every,
            "definitions": schemas.found,
        }
        for part in self.remote_v2():
            from berg.apiserver.aggregation import specs

            specs.merge(document, part)
        document["definitions"] = dict(sorted(document["definitions"].items()))
        return {**document, **_SECURITY}

    def _paths(self, resources: list[Resource], schemas: Schemas) -> Obj:
        from berg.apiserver.openapi.operations import Writer, paths

        found: Obj = {}
        names: dict[tuple[str, str, str], str] = {}

        def name_of(group: str, version: str, kind: str) -> str | None:
            own = names.get((group, version, kind))
            if own is not None:
                return own
            name = _kind_name(group, version, kind)
            if name is not None:
                schemas.add(schema.type_named(name))
            return name

        writer = Writer(schemas.v2, schemas.ref)
        for always in _ALWAYS:
            if always in bundle.type_index():
                schemas.add(schema.type_named(always))
        schemas.found.update(_EXTRA)
        for r in resources:
            custom = self.custom(r, schemas.v2)
            if custom is not None:
                name = custom_name(r)
                names[r.group, r.version, r.kind] = name
                names[r.group, r.version, r.list_kind] = f"{name}List"
                names[r.group, r.version, f"{r.kind}List"] = f"{name}List"
                shown = orjson.dumps(custom).decode().replace("#/definitions/", schemas.prefix)
                schemas.found[name], schemas.found[f"{name}List"] = orjson.loads(shown)
            found.update(paths(r, name_of, writer))
        schemas.settle()
        return found


def _plain(document: Obj) -> Obj:
    """Without what v2 cannot say: `allOf` of one reference is that reference."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if "allOf" in value and len(value["allOf"]) == 1 and "$ref" in value["allOf"][0]:
                return walk(value["allOf"][0])
            return {k: walk(v) for k, v in value.items()}
        return [walk(v) for v in value] if isinstance(value, list) else value

    plain: Obj = walk(document)
    return plain


def custom_name(r: Resource) -> str:
    """`com.example.stable.v1.CronTab`: the group reversed."""
    return ".".join([*reversed(r.group.split(".")), r.version, r.kind])
