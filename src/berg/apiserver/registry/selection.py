"""Which objects a list or watch is about: selectors as one predicate, and the index that answers most of it."""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.registry.options import ListOptions
from berg.apiserver.registry.registry import INDEXED_FIELDS, Registry
from berg.apiserver.registry.strategy import strategy_of
from berg.machinery import status
from berg.machinery.fields import FieldSelector
from berg.machinery.resources import Resource
from berg.storage.cacher import CacheEntry, Predicate

_METADATA = frozenset(("metadata.name", "metadata.namespace"))


class Selection:
    """`key` is set when at most one object can match; `index` when an index holds all that can.

    Fields of custom resources are those of the version that was asked for, which an object may have to be converted
    to first (by a webhook, even): `late` says so, and then `narrow` does what `predicate` leaves undone.
    """

    def __init__(self, registry: Registry, resource: Resource, namespace: str, options: ListOptions) -> None:
        self.namespace = namespace or None
        self.labels = options.label_selector
        self.fields = options.field_selector
        # Events are one stored kind with two spellings: fields are named as in the group that was asked.
        alias = not registry.custom and resource.group != registry.storage.group
        self.strategy = strategy_of(resource) if alias else registry.strategy
        self.registry = registry
        self.resource = resource
        named = all(r.field in _METADATA for r in self.fields.requirements)
        self.late = not named and (registry.convert_custom is not None or registry.schema_revision >= 0)
        self.key: str | None = None
        self.index: tuple[str, str] | None = None
        if not self.fields.everything:
            self._check_fields(resource)
            name = self.fields.exact("metadata.name")
            within = self.fields.exact("metadata.namespace")
            if within is not None and self.namespace is None and registry.storage.namespaced:
                self.namespace = within
            if name is not None and (self.namespace or not registry.storage.namespaced):
                self.key = registry.key(self.namespace or "", name)
            for requirement in self.fields.requirements:
                if requirement.equal and requirement.value and requirement.field in INDEXED_FIELDS:
                    self.index = (requirement.field, requirement.value)
        if self.index is None and (exact := self.labels.exact()) is not None:
            self.index = ("label", f"{exact[0]}={exact[1]}")
        self.predicate: Predicate | None = self._predicate()

    def _check_fields(self, resource: Resource) -> None:
        for requirement in self.fields.requirements:
            field = requirement.field
            own = self.strategy.labels_in(resource.version)
            if field == "metadata.namespace" and own and not (resource.namespaced or self.registry.custom):
                raise status.bad_request(self._unknown(resource, field))
            if field not in _METADATA and field not in own:
                raise status.bad_request(self._unknown(resource, field))

    def _unknown(self, resource: Resource, field: str) -> str:
        """Kinds that have fields of their own to select by say it in other words than those that have none."""
        if resource.plural == "jobs" and resource.group == "batch":
            return f'field label "{field}" not supported for Job'
        if resource.plural == "resourceslices":
            return f"field label not supported for {resource.api_version}, Kind=ResourceSlice: {field}"
        if self.registry.custom or self.strategy.labels_in(resource.version):
            return f"field label not supported: {field}"
        return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'

    def _predicate(self) -> Predicate | None:
        if self.labels.everything and self.fields.everything:
            return None
        if self.late and self.labels.everything:
            return None
        if self.fields.everything or self.late:
            selector = self.labels
            return lambda entry: selector.matches(entry.labels)
        if self.labels.everything and all(r.field in _METADATA for r in self.fields.requirements):
            return _matches_names(self.fields)
        return self._matches

    def _matches(self, entry: CacheEntry) -> bool:
        if not self.labels.everything and not self.labels.matches(entry.labels):
            return False
        if self.fields.everything:
            return True
        return self._fields_match(entry, self.strategy.selectable_fields(entry.obj))

    async def narrow(self, entries: Sequence[CacheEntry]) -> list[CacheEntry]:
        known = await self.registry.many_selectable(entries, self.resource)
        return [e for e, fields in zip(entries, known, strict=True) if self._fields_match(e, fields)]

    def _fields_match(self, entry: CacheEntry, known: dict[str, str]) -> bool:
        def get(field: str) -> str:
            if field == "metadata.name":
                return entry.name
            if field == "metadata.namespace":
                return entry.namespace
            return known.get(field, "")

        return self.fields.matches(get)


def _matches_names(selector: FieldSelector) -> Predicate:
    return lambda entry: selector.matches(lambda f: entry.name if f == "metadata.name" else entry.namespace)
