"""Paths and operations of a resource, as both OpenAPI versions list them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from berg.apiserver.openapi.schemas import gvk
from berg.apiserver.registry.registry import returns_deleted
from berg.machinery.resources import Resource, Subresource
from berg.machinery.status import Obj

_JSON = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_LIST = (
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
)
_WRITE = (("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"))
_PATCH = (*_WRITE, ("force", "boolean"))
_DELETE = (
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
)
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


@dataclass(slots=True)
class Writer:
    """How one OpenAPI version writes things. `ref` refers to a type by its name, or gives None for no type."""

    v2: bool
    ref: Callable[[str], Obj]

    def parameter(self, name: str, type_: str, where: str = "query", *, required: bool = False) -> Obj:
        found: Obj = {"name": name, "in": where}
        if required:
            found["required"] = True
        if self.v2:
            return {**found, "type": type_, "uniqueItems": True}
        return {**found, "schema": {"type": type_, "uniqueItems": True}}

    def answer(self, text: str, schema: Obj | None, media: tuple[str, ...] = _JSON) -> Obj:
        found: Obj = {"description": text}
        if schema is not None:
            if self.v2:
                found["schema"] = schema
            else:
                found["content"] = {m: {"schema": schema} for m in media}
        return found

    def with_body(self, operation: Obj, schema: Obj, media: tuple[str, ...], *, required: bool = True) -> None:
        if self.v2:
            body = {"name": "body", "in": "body", "schema": schema, **({"required": True} if required else {})}
            operation.setdefault("parameters", []).append(body)
            operation["consumes"] = list(media)
        else:
            found: Obj = {"content": {m: {"schema": schema} for m in media}}
            if required:
                found["required"] = True
            operation["requestBody"] = found


def paths(r: Resource, names: Callable[[str, str, str], str | None], w: Writer) -> dict[str, Obj]:
    """Path → path item, for the resource and its subresources. `names` finds the schema of a kind."""
    maker = _Maker(r, names, w)
    found: dict[str, Obj] = {}
    within = f"{r.root}/namespaces/{{namespace}}/{r.plural}" if r.namespaced else f"{r.root}/{r.plural}"
    collection = maker.item(named=False)
    for verb in ("list", "create", "deletecollection"):
        if verb in r.verbs:
            method = {"list": "get", "create": "post", "deletecollection": "delete"}[verb]
            collection[method] = maker.operation(verb, named=False)
    one = maker.item(named=True)
    for verb in ("get", "update", "patch", "delete"):
        if verb in r.verbs:
            one[{"update": "put"}.get(verb, verb)] = maker.operation(verb, named=True)
    if any(m in collection for m in ("get", "post", "delete")):
        found[within] = collection
    if any(m in one for m in ("get", "put", "patch", "delete")):
        found[f"{within}/{{name}}"] = one
    if r.namespaced and "list" in r.verbs:
        every = {"parameters": maker.parameters(_LIST), "get": maker.operation("list", named=False, everywhere=True)}
        found[f"{r.root}/{r.plural}"] = every
    for sub in r.subresources.values():
        found[f"{within}/{{name}}/{sub.name}"] = maker.subresource(sub)
    return found


_ACTIONS = {
    "list": "list",
    "create": "post",
    "deletecollection": "deletecollection",
    "get": "get",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
}
_VERB_NAMES = {"create": "create", "update": "replace", "get": "read", "deletecollection": "delete"}


class _Maker:
    def __init__(self, r: Resource, names: Callable[[str, str, str], str | None], w: Writer) -> None:
        self.r, self.names, self.w = r, names, w
        words = re.split(r"[.-]", r.group.removesuffix(".k8s.io")) if r.group else ["core"]
        title = "".join(word.capitalize() for word in words)
        self.tag = f"{title[0].lower()}{title[1:]}_{r.version}"
        self.title = title + r.version[0].upper() + r.version[1:]

    def parameters(self, listed: tuple[tuple[str, str], ...]) -> list[Obj]:
        return [self.w.parameter(*one) for one in (*listed, ("pretty", "string"))]

    def item(self, *, named: bool) -> Obj:
        parameters = []
        if named:
            parameters.append(self.w.parameter("name", "string", "path", required=True))
        if self.r.namespaced:
            parameters.append(self.w.parameter("namespace", "string", "path", required=True))
        parameters.append(self.w.parameter("pretty", "string"))
        return {"parameters": parameters}

    def schema(self, group: str, version: str, kind: str) -> Obj | None:
        name = self.names(group, version, kind)
        return self.w.ref(name) if name else None

    def operation(self, verb: str, *, named: bool, everywhere: bool = False, sub: Subresource | None = None) -> Obj:
        r, w = self.r, self.w
        group, version, kind = (sub.group, sub.version, sub.kind) if sub else (r.group, r.version, r.kind)
        scope = "Namespaced" if r.namespaced and not everywhere else ""
        suffix = "ForAllNamespaces" if everywhere else ""
        sub_name = "".join(p.capitalize() for p in sub.name.split("-")) if sub else ""
        prefix = _VERB_NAMES.get(verb, verb)
        title = self.title if verb != "deletecollection" else f"{self.title}Collection"
        operation: Obj = {
            "tags": [self.tag],
            "description": f"{prefix} {r.kind}",
            "operationId": f"{prefix}{title}{scope}{r.kind}{sub_name}{suffix}",
            "responses": {},
            "x-kubernetes-action": _ACTIONS[verb],
            "x-kubernetes-group-version-kind": gvk(group, version, kind),
        }
        listed = {
            "list": _LIST,
            "create": _WRITE,
            "update": _WRITE,
            "patch": _PATCH,
            "delete": _DELETE,
            "deletecollection": tuple(dict.fromkeys((*_LIST[1:-1], *_DELETE))),
        }.get(verb, ())
        if listed and not everywhere:
            operation["parameters"] = [w.parameter(*one) for one in listed]
        shown = self.schema(group, version, kind)
        media: tuple[str, ...] = _JSON
        answer = shown
        if verb == "list":
            answer, media = self.schema(group, version, f"{kind}List"), (*_JSON, *_STREAMS)
        elif verb in ("delete", "deletecollection"):
            answer = w.ref(f"{_META}Status")
            if verb == "delete" and returns_deleted(r) and r.plural != "namespaces":
                answer = shown
        responses = {"200": w.answer("OK", answer, media), "401": {"description": "Unauthorized"}}
        if verb in ("create", "update", "patch"):
            responses["201"] = w.answer("Created", answer)
        if verb in ("create", "delete"):
            responses["202"] = w.answer("Accepted", answer)
        operation["responses"] = responses
        if w.v2:
            operation["schemes"], operation["produces"] = ["https"], list(media)
            operation.setdefault("consumes", ["*/*"])
        if verb in ("create", "update") and shown is not None:
            w.with_body(operation, shown, ("*/*",))
        elif verb == "patch":
            w.with_body(operation, w.ref(f"{_META}Patch"), _PATCHES)
        elif verb in ("delete", "deletecollection"):
            w.with_body(operation, w.ref(f"{_META}DeleteOptions"), ("*/*",), required=False)
        return operation

    def subresource(self, sub: Subresource) -> Obj:
        item = self.item(named=True)
        if sub.name == "log":
            item["get"] = self.operation("get", named=True, sub=sub)
            item["get"]["responses"]["200"] = self.w.answer("OK", {"type": "string"}, ("text/plain", *_JSON))
            return item
        if sub.kind.endswith("Options"):
            for method in ("get", "post", "put", "patch", "delete"):
                verb = {"post": "create", "put": "update"}.get(method, method)
                if verb in sub.verbs:
                    operation = self.operation("get", named=True, sub=sub)
                    operation["x-kubernetes-action"] = "connect"
                    scope = "Namespaced" if self.r.namespaced else ""
                    operation["operationId"] = (
                        f"connect{self.title[:4]}{self.title[4:]}{method.capitalize()}{scope}{self.r.kind}"
                        f"{sub.name.capitalize()}"
                    )
                    operation["responses"]["200"] = self.w.answer("OK", {"type": "string"}, ("*/*",))
                    if self.w.v2:
                        operation["produces"] = ["*/*"]
                    item[method] = operation
            return item
        for verb in sub.verbs:
            if verb in _ACTIONS and verb not in ("list", "delete", "deletecollection"):
                method = {"create": "post", "update": "put"}.get(verb, verb)
                item[method] = self.operation(verb, named=True, sub=sub)
        return item
