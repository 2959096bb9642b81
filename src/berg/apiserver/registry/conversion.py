"""One stored version, several served ones: how an object of a resource turns from one version into another.

Most versions of a built-in kind differ in nothing but `apiVersion`; those that differ register a function with
`@conversion`. What is stored is always the storage version.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

from berg.machinery.resources import Resource
from berg.machinery.status import Obj

Convert = Callable[[Obj], None]
"""changes the object in place; `apiVersion` and `kind` are set by the caller"""

_conversions: dict[tuple[str, str, str], Convert] = {}

STORED_AS: dict[tuple[str, str], tuple[str, str]] = {("events.k8s.io", "events"): ("", "events")}
"""(group, plural) served from the storage of another group's resource"""

STORAGE_VERSIONS: dict[tuple[str, str], str] = {}
"""(group, plural) → version, where it is not the most preferred one"""


def conversion(plural: str, source: str, target: str) -> Callable[[Convert], Convert]:
    """Registers how `plural` goes from one apiVersion to another, e.g. ("horizontalpodautoscalers",
    "autoscaling/v1", "autoscaling/v2")."""

    def register(convert: Convert) -> Convert:
        _conversions[plural, source, target] = convert
        return convert

    return register


@cache
def _load() -> None:
    for room in ("admissionregistration", "autoscaling", "definitions", "events", "resource"):
        import_module(f"berg.apiserver.registry.conversions.{room}")


def convert(obj: Obj, source: Resource, target: Resource) -> Obj:
    """In place; returns the same object."""
    if source.api_version != target.api_version:
        _load()
        special = _conversions.get((source.plural, source.api_version, target.api_version))
        if special is not None:
            special(obj)
        obj["apiVersion"] = target.api_version
        obj["kind"] = target.kind
    return obj


def adopt(obj: Obj, storage: Resource) -> None:
    """Turns an object that another version wrote to the store, one no longer served perhaps, into the storage
    version's."""
    source = obj["apiVersion"]
    if source != storage.api_version:
        _load()
        special = _conversions.get((storage.plural, source, storage.api_version))
        if special is not None:
            special(obj)
        obj["apiVersion"] = storage.api_version
        obj["kind"] = storage.kind
