"""The routes of a custom resource. They are fewer than those of a built-in one, and told in other words.

Source: k8s.io/apiextensions-apiserver pkg/controller/openapi/builder.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.apiserver.openapi.operations import DELETE, LIST, NAME, NAMESPACE, PATCH, PRETTY, WRITE, title_and_tag
from berg.apiserver.openapi.routes import Parameter, Route, Writer
from berg.apiserver.openapi.schemas import gvk
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

INFO = {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_MEDIA = ("application/json", "application/yaml")
_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_GET = (("resourceVersion", "string"),)
_ROUTES: dict[str, tuple[str, str, str, tuple[tuple[str, str], ...]]] = {
    "list": ("get", "list", "list", LIST),
    "create": ("post", "create", "post", WRITE),
    "deletecollection": ("delete", "delete", "deletecollection", LIST),
    "get": ("get", "read", "get", _GET),
    "update": ("put", "replace", "put", WRITE),
    "delete": ("delete", "delete", "delete", DELETE),
    "patch": ("patch", "patch", "patch", PATCH),
}
"""verb → method, first word of the id, action, parameters"""


def custom_name(r: Resource) -> str:
    """`com.example.stable.v1.CronTab`: the group reversed."""
    return ".".join([*reversed(r.group.split(".")), r.version, r.kind])


def paths(r: Resource, writer: Writer) -> dict[str, Obj]:
    """Path → path item, of the resource and its subresources."""
    found: dict[str, list[Route]] = {}
    for path, route in _routes(r, writer):
        found.setdefault(path, []).append(route)
    return {path: writer.item(routes) for path, routes in found.items()}


def _routes(r: Resource, writer: Writer) -> Iterator[tuple[str, Route]]:
    every = f"{r.root}/{r.plural}"
    root = f"{r.root}/namespaces/{{namespace}}/{r.plural}" if r.namespaced else every
    if r.namespaced:
        yield every, _route(r, "list", writer, (), suffix="ForAllNamespaces")
    place: tuple[Parameter, ...] = (NAMESPACE,) if r.namespaced else ()
    for verb in ("list", "create", "deletecollection"):
        yield root, _route(r, verb, writer, place)
    place = (*place, NAME)
    for verb in ("get", "update", "delete", "patch"):
        yield f"{root}/{{name}}", _route(r, verb, writer, place)
    for sub in r.subresources:
        for verb in ("get", "update", "patch"):
            yield f"{root}/{{name}}/{sub}", _route(r, verb, writer, place, sub=sub)


def _route(
    r: Resource, verb: str, writer: Writer, place: tuple[Parameter, ...], *, sub: str = "", suffix: str = ""
) -> Route:
    ref = writer.schemas.ref
    method, begin, action, options = _ROUTES[verb]
    title, tag = title_and_tag(r.group, r.version)
    middle = "Collection" if verb == "deletecollection" else ""
    scope = "Namespaced" if r.namespaced else ""
    own = ref(_SCALE if sub == "scale" else custom_name(r))
    shown = own
    if verb == "list":
        shown = ref(f"{custom_name(r).removesuffix(r.kind)}{r.list_kind}")
    elif verb in ("delete", "deletecollection"):
        shown = ref(f"{_META}Status")
    answers: dict[str, tuple[str, Obj | None]] = {"200": ("OK", shown)}
    if verb in ("create", "update"):
        answers["201"] = ("Created", shown)
    if verb in ("create", "delete"):
        answers["202"] = ("Accepted", shown)
    route = Route(
        method,
        tag,
        f"{begin}{title}{middle}{scope if not suffix else ''}{r.kind}{sub.capitalize()}{suffix}",
        f"{begin} {sub + ' of ' if sub else ''}{r.kind}",
        answers,
        _MEDIA,
        _PATCHES if verb == "patch" else _MEDIA,
        (PRETTY, *((name, type_, "query") for name, type_ in options), *place),
        extensions={"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(r.group, r.version, r.kind)},
    )
    if verb in ("create", "update"):
        route.body = own
    elif verb == "patch":
        route.body = ref(f"{_META}Patch")
    elif verb == "delete":
        route.body, route.body_required = ref(f"{_META}DeleteOptions"), False
    return route
