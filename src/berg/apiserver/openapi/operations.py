"""The routes of a resource and its subresources, as upstream's installer lays them out.

Source: k8s.io/apiserver pkg/endpoints/installer.go, pkg/endpoints/openapi.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from berg.apiserver.openapi.routes import ANY, JSON, STREAMS, Parameter, Route, Writer
from berg.apiserver.openapi.schemas import gvk
from berg.apiserver.registry.registry import returns_deleted
from berg.machinery.resources import Resource, Subresource
from berg.machinery.schema import type_of
from berg.machinery.status import Obj

_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
LIST = (
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
WRITE = (("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"))
PATCH = (*WRITE, ("force", "boolean"))
DELETE = (
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
)
_OPTIONS = {
    "list": LIST,
    "watch": LIST,
    "watchlist": LIST,
    "create": WRITE,
    "update": WRITE,
    "patch": PATCH,
    "delete": DELETE,
    "deletecollection": tuple(dict.fromkeys((*LIST[1:-1], *DELETE))),
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_METHODS = {"create": "post", "update": "put", "patch": "patch", "delete": "delete", "deletecollection": "delete"}
_ACTIONS = {"create": "post", "update": "put"}
_NAMES = {
    "get": "read",
    "update": "replace",
    "watchlist": "watch",
    "deletecollection": "delete",
}
_CONNECTS = {
    "proxy": ("get", "put", "post", "delete", "options", "head", "patch"),
    "exec": ("get", "post"),
    "attach": ("get", "post"),
    "portforward": ("get", "post"),
}
_TYPES = {"string": "string", "bool": "boolean", "int32": "integer", "int64": "integer"}
NAME: Parameter = ("name", "string", "path")
NAMESPACE: Parameter = ("namespace", "string", "path")
PRETTY: Parameter = ("pretty", "string", "query")

Names = Callable[[str, str, str], "str | None"]
"""group, version, kind → the name of its schema"""


def paths(r: Resource, names: Names, writer: Writer) -> dict[str, Obj]:
    """Path → path item, of the resource and its subresources."""
    found: dict[str, list[Route]] = {}
    for path, route in _Maker(r, names, writer).routes():
        found.setdefault(path, []).append(route)
    return {path: writer.item(routes) for path, routes in found.items()}


def title_and_tag(group: str, version: str = "") -> tuple[str, str]:
    """What stands in the ids of a group's operations, and the tag they have: `CoreV1`, `core_v1`."""
    name = group.removesuffix(".k8s.io") or "core"
    title, tag = _identifier(name, capital=True), _identifier(name)
    if version:
        title, tag = title + _identifier(version, capital=True), f"{tag}_{_identifier(version)}"
    return title, tag


def _identifier(text: str, *, capital: bool = False) -> str:
    """`example.com` as `exampleCom`. A digit at the beginning goes."""
    found = ""
    for i, letter in enumerate(text):
        if letter.isalpha() or letter == "_" or (i and letter.isdigit()):
            found += letter.upper() if capital else letter
            capital = False
        else:
            capital = True
    return found


class _Maker:
    def __init__(self, r: Resource, names: Names, writer: Writer) -> None:
        self.r, self.names, self.writer = r, names, writer
        self.title, self.tag = title_and_tag(r.group, r.version)
        self.json = (*JSON, "application/cbor") if writer.cbor else JSON
        self.within = f"namespaces/{{namespace}}/{r.plural}" if r.namespaced else r.plural

    def routes(self) -> Iterator[tuple[str, Route]]:
        r, root = self.r, self.r.root
        collection, one = f"{root}/{self.within}", f"{root}/{self.within}/{{name}}"
        for verb in ("list", "create", "deletecollection"):
            if verb in r.verbs:
                yield collection, self.route(verb, named=False)
        for verb in ("get", "update", "patch", "delete"):
            if verb in r.verbs:
                yield one, self.route(verb, named=True)
        if r.namespaced and "list" in r.verbs:
            yield f"{root}/{r.plural}", self.route("list", named=False, everywhere=True)
        if "watch" in r.verbs:
            yield f"{root}/watch/{self.within}", self.route("watchlist", named=False)
            yield f"{root}/watch/{self.within}/{{name}}", self.route("watch", named=True)
            if r.namespaced:
                yield f"{root}/watch/{r.plural}", self.route("watchlist", named=False, everywhere=True)
        for sub in r.subresources.values():
            if sub.name in _CONNECTS:
                yield from self.connects(f"{one}/{sub.name}", sub)
                continue
            for verb in ("get", "create", "update", "patch", "delete"):
                if verb in sub.verbs:
                    yield f"{one}/{sub.name}", self.route(verb, named=True, sub=sub)

    def route(self, verb: str, *, named: bool, everywhere: bool = False, sub: Subresource | None = None) -> Route:
        r, ref = self.r, self.writer.schemas.ref
        of = sub or r
        scope = "Namespaced" if r.namespaced and not everywhere else ""
        suffix = ("List" if verb == "watchlist" else "") + ("ForAllNamespaces" if everywhere else "")
        begin = _NAMES.get(verb, verb)
        title = self.title + ("Collection" if verb == "deletecollection" else "")
        own = self.schema(of.group, of.version, of.kind)
        route = Route(
            _METHODS.get(verb, "get"),
            self.tag,
            f"{begin}{title}{scope}{r.kind}{_titled(sub)}{suffix}",
            f"{begin} {sub.name + ' of ' if sub else ''}{r.kind}",
            self.answers(verb, own),
            self.json,
            extensions=self.extensions(_ACTIONS.get(verb, verb), of),
        )
        parameters = [PRETTY, *((n, t, "query") for n, t in _OPTIONS.get(verb, ()))]
        if sub is not None and sub.name == "log":
            route.answers, route.produces = {"200": ("OK", {"type": "string"})}, ("text/plain", *self.json)
            parameters += _options("", "v1", "PodLogOptions")
        if verb in ("list", "watch", "watchlist"):
            route.produces = (*self.json, *STREAMS, *(("application/cbor-seq",) if self.writer.cbor else ()))
        if verb in ("create", "update"):
            route.body = own
        elif verb == "patch":
            route.body, route.consumes = ref(f"{_META}Patch"), _PATCHES
            if self.writer.cbor:
                route.consumes = (*_PATCHES, "application/apply-patch+cbor")
        elif verb in ("delete", "deletecollection"):
            route.body, route.body_required = ref(f"{_META}DeleteOptions"), False
        route.parameters = (*parameters, *self.place(named=named, everywhere=everywhere))
        return route

    def answers(self, verb: str, own: Obj | None) -> dict[str, tuple[str, Obj | None]]:
        r, ref = self.r, self.writer.schemas.ref
        shown = own
        if verb == "list":
            shown = self.schema(r.group, r.version, f"{r.kind}List")
        elif verb in ("watch", "watchlist"):
            shown = ref(f"{_META}WatchEvent")
        elif verb == "deletecollection" or (verb == "delete" and not _answers_deleted(r)):
            shown = ref(f"{_META}Status")
        found: dict[str, tuple[str, Obj | None]] = {"200": ("OK", shown)}
        if verb in ("create", "update", "patch"):
            found["201"] = ("Created", shown)
        if verb in ("create", "delete"):
            found["202"] = ("Accepted", shown)
        return found

    def connects(self, path: str, sub: Subresource) -> Iterator[tuple[str, Route]]:
        scope = "Namespaced" if self.r.namespaced else ""
        options = (*_options(sub.group, sub.version, sub.kind), *self.place(named=True))
        ways: list[tuple[str, str, tuple[Parameter, ...]]] = [(path, "", options)]
        if sub.name == "proxy":
            ways.append((f"{path}/{{path}}", "WithPath", (*options, ("path", "string", "path"))))
        for where, suffix, parameters in ways:
            for method in _CONNECTS[sub.name]:
                yield (
                    where,
                    Route(
                        method,
                        self.tag,
                        f"connect{self.title}{method.capitalize()}{scope}{self.r.kind}{_titled(sub)}{suffix}",
                        f"connect {method.upper()} to {sub.name} of {self.r.kind}",
                        {"200": ("OK", {"type": "string"})},
                        produces=ANY,
                        parameters=parameters,
                        extensions=self.extensions("connect", sub),
                    ),
                )

    def place(self, *, named: bool, everywhere: bool = False) -> Iterator[Parameter]:
        if named:
            yield NAME
        if self.r.namespaced and not everywhere:
            yield NAMESPACE

    def extensions(self, action: str, of: Resource | Subresource) -> Obj:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(of.group, of.version, of.kind),
        }

    def schema(self, group: str, version: str, kind: str) -> Obj | None:
        name = self.names(group, version, kind)
        return self.writer.schemas.ref(name) if name else None


def _titled(sub: Subresource | None) -> str:
    return sub.name.capitalize() if sub is not None else ""


def _answers_deleted(r: Resource) -> bool:
    return returns_deleted(r) and r.plural != "namespaces"


def _options(group: str, version: str, kind: str) -> Iterator[Parameter]:
    """The fields of a kind of options, as parameters; structs are none."""
    options = type_of(group, version, kind)
    for name, field in options.fields.items() if options is not None else ():
        wire = (field.item or field).wire  # a list is a parameter that is given several times
        if name not in ("kind", "apiVersion") and wire in _TYPES:
            yield name, _TYPES[wire], "query"
