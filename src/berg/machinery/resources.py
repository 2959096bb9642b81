"""What kinds of things the API serves: group, version, plural, kind, verbs, short names, subresources.

`Resource` is the one value by which every part of Berg names a resource; the built-in ones come from the
schema bundle (`builtin()`, `resource("deployments.apps")`), those of CustomResourceDefinitions and
aggregated APIs are made at run time with the same class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True, slots=True)
class Subresource:
    """`kind` is what the subresource is read and written as, e.g. Scale in autoscaling/v1 for `scale`."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    verbs: tuple[str, ...] = (
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    )
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: Mapping[str, Subresource] = field(default_factory=dict, hash=False, compare=False)
    api_version: str = field(init=False, hash=False, compare=False)
    """`v1`, `apps/v1`"""
    group_resource: str = field(init=False, hash=False, compare=False)
    """`pods`, `deployments.apps`: how messages and logs name it"""

    def __post_init__(self) -> None:
        in_group = bool(self.group)
        object.__setattr__(self, "api_version", f"{self.group}/{self.version}" if in_group else self.version)
        object.__setattr__(self, "group_resource", f"{self.plural}.{self.group}" if in_group else self.plural)

    @property
    def root(self) -> str:
        """`/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The request path of the collection or of one object."""
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def version_rank(version: str) -> tuple[int, int, int, str]:
    """A key to sort by: v2 before v1, both before v2beta1, that before v1alpha1; anything else by name at the end."""
    import re

    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), "")


class ResourceTable:
    """Resources found by group and plural, or by kind. The order of versions is upstream's preference."""

    def __init__(self, resources: Iterator[Resource] | list[Resource]) -> None:
        self.all: list[Resource] = list(resources)
        self._by_gvr = {(r.group, r.version, r.plural): r for r in self.all}
        self.groups = frozenset(r.group for r in self.all)
        self._by_gvk = {(r.group, r.version, r.kind): r for r in self.all}

    def get(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_gvr.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        return self._by_gvk.get((group, version, kind))

    def preferred(self, group: str, plural: str) -> Resource | None:
        """The resource in the most preferred version that has it."""
        for r in self.all:
            if r.group == group and r.plural == plural:
                return r
        return None


@cache
def builtin() -> ResourceTable:
    """Every built-in resource, groups and versions in upstream's order of preference."""
    from berg.machinery import bundle

    return ResourceTable(bundle.resources())


@cache
def resource(name: str, version: str | None = None) -> Resource:
    """The built-in resource called `pods` or `deployments.apps` (in its preferred version, or in `version`).

    Raises KeyError when there is none: a misspelling in the code, never a user's input.
    """
    plural, _, group = name.partition(".")
    found = builtin().preferred(group, plural) if version is None else builtin().get(group, version, plural)
    if found is None:
        raise KeyError(name)
    return found
