"""`/openapi/v2` and `/openapi/v3`: each document made when it is first asked for, beside the loop, then kept as bytes.

Every v3 document stands under a URL with its hash, so that clients may keep it for ever. The hash is made from what
the document is made from, so it is known before anybody has asked for the document; it changes for a group version
only when that group version does. Both encodings have it, because `Vary` tells them apart.

Source: k8s.io/kube-openapi pkg/handler, pkg/handler3.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

import orjson

import berg
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import negotiation
from berg.machinery import version as versions
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

_PROTOBUF = "application/com.github.proto-openapi.spec.{}@v1.0+protobuf"
_PROTOBUF_ANSWER = "application/com.github.proto-openapi.spec.{}.v1.0+protobuf"
_A_YEAR_S = 365 * 86400

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


class OpenAPI:
    def __init__(self, resources: Callable[[], list[Resource]], *, cbor: bool = False) -> None:
        self._resources = resources
        self._cbor = cbor
        self.custom: Custom = lambda r, v2: None
        self.definition: Callable[[Resource], Obj | None] = lambda r: None
        """the spec of a custom resource's definition"""
        self.remote: Callable[[], dict[str, Document]] = dict
        """group version path → v3 document of an aggregated server"""
        self.remote_v2: Callable[[], list[Obj]] = list
        """parts of aggregated servers' v2 documents"""
        self._made: dict[tuple[str, bool], tuple[str, bytes]] = {}
        """(name, whether in protobuf) → the hash of what it was made from, the document"""
        self._digests: dict[str, str] | None = None
        """name → hash of what the document is made from; None: to be found out"""
        self._making = asyncio.Lock()

    def changed(self, group_version: str = "") -> None:
        self._digests = None

    async def handle(self, request: Request) -> Response | None:
        path = request.path
        if path == "/openapi/v2":
            return await self._answer(request, "v2", "v2")
        if path == "/openapi/v3":
            listed = ((n, d) for n, d in self._all_digests().items() if n != "v2")
            index = {"paths": {n: {"serverRelativeURL": f"/openapi/v3/{n}?hash={d}"} for n, d in sorted(listed)}}
            body = orjson.dumps(index)
            digest = hashlib.sha512(body).hexdigest().upper()
            return await self._conditional(request, body, digest, "application/json")
        if path.startswith("/openapi/v3/"):
            return await self._answer(request, path.removeprefix("/openapi/v3/"), "v3")
        return None

    async def _answer(self, request: Request, name: str, version: str) -> Response:
        digest = self._all_digests().get(name)
        if digest is None or (name == "v2") != (version == "v2"):
            return Response(404, b"", "")
        protobuf = _negotiated(request, version)
        if protobuf is None:
            return Response(406, b"", "", {"Vary": "Accept"})
        media = _PROTOBUF_ANSWER.format(version) if protobuf else "application/json"
        asked = request.arg("hash") if version == "v3" else ""
        if asked and asked != digest:
            headers = {"ETag": f'"{digest}"', "Vary": "Accept", "Location": f"{request.path}?hash={digest}"}
            return Response(301, b"", media, headers)
        response = await self._conditional(request, await self._document(name, digest, protobuf), digest, media)
        if asked:
            response.headers["Cache-Control"] = "public, immutable"
            response.headers["Expires"] = formatdate(time.time() + _A_YEAR_S, usegmt=True).replace("GMT", "UTC")
        return response

    async def _conditional(self, request: Request, body: bytes, digest: str, media: str) -> Response:
        headers = {"ETag": f'"{digest}"', "Vary": "Accept"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(304, b"", "", headers)
        response = Response(200, body, media, headers)
        if len(body) >= negotiation.IN_THREAD_BYTES:
            await asyncio.to_thread(negotiation.compress, request, response)
        else:
            negotiation.compress(request, response)
        return response

    # ---- documents

    async def _document(self, name: str, digest: str, protobuf: bool) -> bytes:
        key = (name, protobuf)
        found = self._made.get(key)
        if found is not None and found[0] == digest:
            return found[1]
        async with self._making:
            found = self._made.get(key)
            if found is None or found[0] != digest:
                found = (digest, await asyncio.to_thread(self._make, name, protobuf, self._groups().get(name, [])))
                self._made[key] = found
        return found[1]

    def _make(self, name: str, protobuf: bool, resources: list[Resource]) -> bytes:
        from berg.apiserver.openapi import documents, gnostic

        remote = self.remote().get(name)
        if remote is not None:
            return gnostic.encode(orjson.loads(remote.body), "v3") if protobuf else remote.body
        if name == "v2":
            made = documents.v2(list(self._resources()), self.custom, self.remote_v2(), cbor=self._cbor)
        else:
            made = documents.v3(name, resources, self.custom, cbor=self._cbor)
        return gnostic.encode(made, "v2" if name == "v2" else "v3") if protobuf else orjson.dumps(made)

    def _groups(self) -> dict[str, list[Resource]]:
        """`apis/apps/v1` → its resources."""
        found: dict[str, list[Resource]] = {}
        for r in self._resources():
            found.setdefault(r.root[1:], []).append(r)
        return found

    def _all_digests(self) -> dict[str, str]:
        if self._digests is not None:
            return self._digests
        from berg.apiserver.openapi.nonresource import names

        seed = f"{berg.__version__}/{versions.GIT_VERSION}/{self._cbor}/"
        found: dict[str, str] = {}
        own: dict[str, None] = {}
        for name, resources in self._groups().items():
            digest = hashlib.sha512(f"{seed}{name}".encode())
            for r in resources:
                digest.update(repr(r).encode())
                spec = self.definition(r)
                if spec is None:
                    own[r.group] = None
                    continue
                version = next(v for v in spec["versions"] if v["name"] == r.version)
                said = [version.get("schema"), version.get("selectableFields"), spec.get("preserveUnknownFields")]
                digest.update(orjson.dumps(said))
            found[name] = digest.hexdigest().upper()
        for name in names(list(own)):
            found[name] = hashlib.sha512(f"{seed}{name}".encode()).hexdigest().upper()
        found.update({name: document.digest for name, document in self.remote().items()})
        parts = orjson.dumps([sorted(found.items()), self.remote_v2()])
        found["v2"] = hashlib.sha512(parts).hexdigest().upper()
        for gone in [key for key, made in self._made.items() if found.get(key[0]) != made[0]]:
            del self._made[gone]
        self._digests = found
        return found


def _negotiated(request: Request, version: str) -> bool | None:
    """Whether in protobuf; None when nothing that there is would do."""
    known = {
        "application/json": False,
        "application/*": False,
        "*/*": False,
        _PROTOBUF.format(version): True,
        _PROTOBUF_ANSWER.format(version): True,
    }
    for media, _ in negotiation.parse_accept(request.headers.get("accept") or "*/*"):
        if media in known:
            return known[media]
    return None
