"""Routes as OpenAPI operations: what both versions say of a request, each in its own words.

Parameters that every operation of a path has stand at the path. v2 moreover names once what many paths have
(`#/parameters/NAME-HASH`), but for what clients look for by its place: `dryRun`, `fieldValidation`, names, bodies of
one kind.

Source: k8s.io/kube-openapi pkg/builder, pkg/builder3.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from berg.apiserver.openapi.schemas import Schemas
from berg.machinery.hashing import fnv64
from berg.machinery.status import Obj

JSON = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
ANY = ("*/*",)

Parameter = tuple[str, str, str]
"""name, type, where"""


@dataclass(slots=True)
class Route:
    method: str
    tag: str
    id: str
    description: str
    answers: dict[str, tuple[str, Obj | None]]
    """code → its words, the schema of what is answered"""
    produces: tuple[str, ...] = JSON
    consumes: tuple[str, ...] = ANY
    parameters: tuple[Parameter, ...] = ()
    body: Obj | None = None
    body_required: bool = True
    extensions: Obj = field(default_factory=dict)


class Writer:
    """Writes path items. References go through `schemas`, which gathers what they refer to. `cbor`: whether that is
    offered."""

    def __init__(self, schemas: Schemas, *, cbor: bool = False) -> None:
        self.schemas = schemas
        self.cbor = cbor
        self.parameters: dict[str, Obj] = {}
        """v2's shared ones"""

    def item(self, routes: list[Route]) -> Obj:
        common = set(routes[0].parameters)
        for route in routes[1:]:
            common.intersection_update(route.parameters)
        found: Obj = {}
        if common:
            found["parameters"] = self._listed(map(self._parameter, common))
        for route in routes:
            found[route.method] = self._operation(route, common)
        return found

    def _operation(self, route: Route, common: set[Parameter]) -> Obj:
        v2 = self.schemas.v2
        parameters = [self._parameter(p) for p in route.parameters if p not in common]
        shown: Obj = {"tags": [route.tag], "description": route.description, "operationId": route.id}
        if route.body is not None and v2:
            required = {"required": True} if route.body_required else {}
            parameters.append({"name": "body", "in": "body", **required, "schema": route.body})
        elif route.body is not None:
            shown["requestBody"] = {"content": {m: {"schema": route.body} for m in route.consumes}}
            if route.body_required:
                shown["requestBody"]["required"] = True
        if v2:
            if route.consumes:
                shown["consumes"] = list(route.consumes)
            shown["produces"], shown["schemes"] = list(route.produces), ["https"]
        if parameters:
            shown["parameters"] = self._listed(parameters)
        shown["responses"] = {
            **{code: self._answer(text, schema, route.produces) for code, (text, schema) in route.answers.items()},
            "401": {"description": "Unauthorized"},
        }
        return {**shown, **route.extensions}

    def _answer(self, text: str, schema: Obj | None, media: tuple[str, ...]) -> Obj:
        if schema is None:
            return {"description": text}
        if self.schemas.v2:
            return {"description": text, "schema": schema}
        return {"description": text, "content": {m: {"schema": schema} for m in media}}

    def _parameter(self, parameter: Parameter) -> Obj:
        name, type_, where = parameter
        required = {"required": True} if where == "path" else {}
        if self.schemas.v2:
            return {"uniqueItems": True, "type": type_, "name": name, "in": where, **required}
        return {"name": name, "in": where, **required, "schema": {"type": type_, "uniqueItems": True}}

    def _listed(self, parameters: Iterable[Obj]) -> list[Obj]:
        ordered = sorted(parameters, key=lambda p: (p["name"], p["in"]))
        return [self._shared(p) for p in ordered] if self.schemas.v2 else ordered

    def _shared(self, parameter: Obj) -> Obj:
        name, where = parameter["name"], parameter["in"]
        if name == "name" or (where == "query" and name in ("dryRun", "fieldValidation")):
            return parameter
        if where == "body" and not parameter["schema"].get("$ref", "").startswith("#/definitions/io.k8s.apimachinery"):
            return parameter
        shared = f"{name}-{_digest(orjson.dumps(parameter))}"
        self.parameters[shared] = parameter
        return {"$ref": f"#/parameters/{shared}"}


@lru_cache(maxsize=128)
def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(fnv64(data).to_bytes(8, "big")[:6]).decode()
