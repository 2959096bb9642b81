"""Subresources that are read and written as (a part of) their object: status, scale, finalize, approval, ….

A `View` says as which kind a subresource shows its object, and what of a written one goes back into it. The main
resource is the plainest view.

Source: kubernetes pkg/registry (each kind's storage.go).
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.registry import objectmeta
from berg.apiserver.registry.registry import Registry
from berg.machinery import status
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource, Subresource
from berg.machinery.status import Obj


class View:
    """The object itself."""

    identity = True
    admission_kind: tuple[str, str, str] | None = None

    def kind(self, resource: Resource) -> Resource:
        """As what it is read and written."""
        return resource

    def show(self, obj: Obj) -> Obj:
        return obj

    def before(self, obj: Obj) -> Obj:
        """As admission sees the object before it is written."""
        return self.show(obj)

    def put(self, current: Obj, given: Obj) -> Obj:
        """What `current` (the view's own to change) becomes when `given` is written."""
        return given


class Part(View):
    """Only what lies under some paths is written."""

    def __init__(self, *paths: tuple[str, ...]) -> None:
        self.paths = paths

    def put(self, current: Obj, given: Obj) -> Obj:
        for path in self.paths:
            source: Any = given
            target: Any = current
            for step in path[:-1]:
                source = (source or {}).get(step)
                target = target.setdefault(step, {})
            last = path[-1]
            if isinstance(source, dict) and last in source:
                target[last] = source[last]
            else:
                target.pop(last, None)
        current["metadata"]["resourceVersion"] = given["metadata"].get("resourceVersion", "")
        if given["metadata"].get("uid"):
            current["metadata"]["uid"] = given["metadata"]["uid"]
        return current


class Scale(View):
    """autoscaling/v1 Scale over spec.replicas. Paths are those of a built-in kind, or a CRD's own."""

    identity = False
    admission_kind = ("autoscaling", "v1", "Scale")

    def __init__(
        self,
        spec_path: str = ".spec.replicas",
        status_path: str = ".status.replicas",
        selector_path: str = ".spec.selector",
    ) -> None:
        self.spec_path = spec_path.strip(".").split(".")
        self.status_path = status_path.strip(".").split(".")
        self.selector_path = selector_path.strip(".").split(".") if selector_path else []

    def kind(self, resource: Resource) -> Resource:
        return Resource("autoscaling", "v1", resource.plural, "Scale", resource.namespaced)

    def show(self, obj: Obj) -> Obj:
        meta = obj["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        shown_status: Obj = {"replicas": _at(obj, self.status_path) or 0}
        selector = _at(obj, self.selector_path) if self.selector_path else None
        if isinstance(selector, str) and selector:
            shown_status["selector"] = selector
        elif isinstance(selector, dict):
            plain = not ("matchLabels" in selector or "matchExpressions" in selector)
            text = str(Selector.of_map(selector) if plain else Selector.of(selector))
            if text:
                shown_status["selector"] = text
        replicas = _at(obj, self.spec_path)
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {k: meta[k] for k in kept if k in meta},
            "spec": {"replicas": replicas} if replicas else {},
            "status": shown_status,
        }

    def put(self, current: Obj, given: Obj) -> Obj:
        meta = given.get("metadata") or {}
        replicas = (given.get("spec") or {}).get("replicas", 0)
        errors = objectmeta.validate_scale(meta)
        if not isinstance(replicas, int) or replicas < 0:
            errors.append(status.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0"))
        if errors:
            raise status.invalid("autoscaling", "Scale", current["metadata"].get("name", ""), errors)
        if meta.get("uid"):
            current["metadata"]["uid"] = meta["uid"]
        current["metadata"]["resourceVersion"] = meta.get("resourceVersion", "")
        target: Any = current
        for step in self.spec_path[:-1]:
            target = target.setdefault(step, {})
        target[self.spec_path[-1]] = replicas
        return current


def _at(obj: Any, path: list[str]) -> Any:
    for step in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


WHOLE = View()
_VIEWS: dict[str, View] = {
    "status": WHOLE,
    "scale": Scale(),
    "finalize": Part(("metadata",), ("spec", "finalizers")),
    "ephemeralcontainers": WHOLE,
    "resize": WHOLE,
    "approval": Part(("metadata",), ("status", "conditions")),
}


def view_of(registry: Registry, resource: Resource, subresource: str) -> View | None:
    """None when the subresource is none of these."""
    if not subresource:
        return WHOLE
    found: Subresource | None = resource.subresources.get(subresource)
    if found is None:
        return None
    if registry.custom and subresource == "scale":
        scale: View = registry.scale_view[resource.version]
        return scale
    return _VIEWS.get(subresource)
