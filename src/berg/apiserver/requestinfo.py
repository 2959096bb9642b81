"""What a request is about, read from its method and path alone.

Source: k8s.io/apiserver pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berg.apiserver.http.message import Request

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_SUBRESOURCES = frozenset(("status", "finalize"))
"""query values that mean true: an empty one too, as in `?watch`"""


class NoRequestInfo(ValueError):
    """A path that cannot be about anything."""


@dataclass(slots=True)
class RequestInfo:
    """For a path that names no resource only `path` and `verb` (the method in lower case) mean anything."""

    path: str
    verb: str
    is_resource: bool = False
    api_group: str = ""
    api_version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    parts: tuple[str, ...] = ()
    """from the resource on; what follows a `proxy` is not split off from it"""

    @property
    def long_running(self) -> bool:
        return self.verb == "watch" or (
            self.subresource in ("proxy", "exec", "attach", "log", "portforward")
            if self.is_resource
            else self.path.startswith("/debug/pprof/")
        )


def is_true(values: list[str] | None) -> bool:
    """As upstream reads a boolean parameter: what is there and is not said to be false."""
    return values is not None and values != [] and values[0].lower() not in ("false", "0")


def resolve(request: Request) -> RequestInfo:
    """Raises NoRequestInfo."""
    path = request.path
    if "%" in path:
        from urllib.parse import unquote

        path = unquote(path)
    if path.startswith("//"):
        return RequestInfo(path, request.method.lower())
    parts = path.strip("/").split("/")
    verb = request.method.lower()
    head = parts[0]
    if head == "api":
        if len(parts) < 3:
            return RequestInfo(path, verb)
        group, version, rest = "", parts[1], parts[2:]
    elif head == "apis":
        if len(parts) < 4:
            return RequestInfo(path, verb)
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(path, verb)
    verb = _VERBS.get(request.method, "")
    if rest[0] in ("watch", "proxy"):
        if len(rest) < 2:
            raise NoRequestInfo(f"unable to determine kind and namespace from url, {path}")
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    info = RequestInfo(path, verb, True, group, version, namespace, parts=tuple(rest))
    count = len(rest)
    if count >= 3 and verb != "proxy":
        info.subresource = rest[2]
    if count >= 2:
        info.name = rest[1]
    info.resource = rest[0]
    if not info.name:
        if verb == "get":
            if request.raw_query and is_true(request.query.get("watch")):
                info.verb = "watch"
            else:
                info.verb = "list"
        elif verb == "delete":
            info.verb = "deletecollection"
        if request.raw_query and info.verb in ("list", "watch"):
            info.name = _selected_name(request)
    return info


def _selected_name(request: Request) -> str:
    """The one name that a field selector asks for: lets a list be authorized for that object alone."""
    for term in request.arg("fieldSelector").split(","):
        key, equals, value = term.partition("=")
        if equals and key.strip() == "metadata.name" and not key.endswith("!"):
            return value.lstrip("=").strip()
    return ""
