"""What a custom resource's registry does: validation by its version's schema, status and generation as declared.

Source: k8s.io/apiextensions-apiserver pkg/registry/customresource.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from berg.apiserver.crd import columns, embedding, list_types, ratcheting, rules, scale, values
from berg.apiserver.crd.columns import BadPath, compile_path
from berg.apiserver.registry.strategy import Context, Strategy
from berg.machinery import names, status
from berg.machinery.status import FieldError, Obj

_STANDARD_FINALIZERS = frozenset(("orphan", "foregroundDeletion", "kubernetes"))


@dataclass(slots=True)
class Version:
    """One version of a definition, compiled."""

    obj: Obj
    check: values.Check
    rules: rules.Rules
    status_check: values.Check
    scale: Obj | None
    embeds: bool
    """whether objects are embedded somewhere"""
    lists: bool
    """whether there are sets or maps among its lists"""

    @property
    def schema(self) -> Obj:
        return (self.obj.get("schema") or {}).get("openAPIV3Schema") or {}

    @classmethod
    def of(cls, version: Obj) -> Version:
        schema: Obj = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        body = {k: v for k, v in (schema.get("properties") or {}).items() if k not in ("metadata",)}
        plain = {**schema, "properties": body} if body else schema
        state = (schema.get("properties") or {}).get("status") or {}
        return cls(
            version,
            values.compile_schema(plain),
            rules.compile_rules(schema),
            values.compile_schema(state),
            (version.get("subresources") or {}).get("scale"),
            embedding.embeds(schema),
            list_types.declared(schema),
        )

    def embedded(self, obj: Obj) -> list[FieldError]:
        return list(embedding.faults(obj, self.schema)) if self.embeds else []

    def doubled(self, obj: Obj, old: Obj | None = None) -> list[FieldError]:
        """What stands twice in a set or a map; nothing when there was something before."""
        found = list(list_types.faults(obj, self.schema)) if self.lists else []
        return [] if found and old is not None and any(list_types.faults(old, self.schema)) else found


class CustomStrategy(Strategy):
    allow_unconditional_update = False
    status_metadata = ()

    def __init__(self, crd: Obj, versions: dict[str, Version]) -> None:
        spec = crd["spec"]
        self.versions = versions
        self.namespaced = spec["scope"] == "Namespaced"
        stored = next(v for v in spec["versions"] if v["storage"])
        self.has_status = "status" in (stored.get("subresources") or {})
        self.columns = columns.columns_of(stored)
        self.columns_by_version = {v["name"]: columns.columns_of(v) for v in spec["versions"]}
        self._selectable: dict[str, Callable[[Obj], list[Any]]] = {}
        self._labels: dict[str, list[str]] = {v["name"]: [] for v in spec["versions"]}
        for version in spec["versions"]:
            for field in version.get("selectableFields") or ():
                label = field["jsonPath"].removeprefix(".")
                try:
                    self._selectable[label] = compile_path(field["jsonPath"])
                except BadPath:
                    continue
                self._labels[version["name"]].append(label)
        self.field_labels = tuple(self._selectable)
        self.terminating = bool(crd["metadata"].get("deletionTimestamp"))

    def labels_in(self, version: str) -> Sequence[str]:
        return self._labels[version]

    def _version(self, obj: Obj) -> Version:
        return self.versions[obj["apiVersion"].rpartition("/")[2]]

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.dns1123_subdomain(name.rstrip("-") + "a" if prefix and name.endswith("-") else name)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        found = {}
        for name, find in self._selectable.items():
            at = find(obj)
            value = at[0] if at else None
            found[name] = "" if value is None else columns._text(value)
        return found

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        if self.terminating:
            r = ctx.resource
            why = "create not allowed while custom resource definition is terminating"
            raise status.forbidden(r.group, r.plural, obj["metadata"].get("name") or "", why)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        version = self._version(obj)
        errors: list[FieldError] = []
        version.check("", obj, errors)
        errors += list(scale.faults(version.scale, obj)) + version.embedded(obj) + version.doubled(obj)
        return _with_rules(errors, version.rules, obj, None, ctx.warnings)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        version = self._version(obj)
        errors: list[FieldError] = []
        version.check("", obj, errors)
        errors = ratcheting.made_now(errors, obj, old, version.schema)
        errors += list(scale.faults(version.scale, obj)) + version.embedded(obj) + version.doubled(obj, old)
        return _with_rules(errors, version.rules, obj, old, ctx.warnings)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        version = self._version(obj)
        errors: list[FieldError] = []
        if "status" in obj:
            version.status_check("", obj["status"], errors)
            state = (version.schema.get("properties") or {}).get("status") or {}
            errors = values.below("status", ratcheting.made_now(errors, obj["status"], old.get("status"), state))
        errors += [*scale.faults(version.scale, obj, spec=False), *version.doubled(obj, old)]
        return _with_rules(errors, version.rules, obj, old, ctx.warnings)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        found = []
        before = set((old or {}).get("metadata", {}).get("finalizers") or ())
        for finalizer in obj["metadata"].get("finalizers") or ():
            if finalizer in before or "/" in finalizer or finalizer in _STANDARD_FINALIZERS:
                continue
            with_path = " including a path (/)" if "." in finalizer else ""
            found.append(
                f'metadata.finalizers: "{finalizer}": prefer a domain-qualified finalizer name{with_path} to avoid '
                "accidental conflicts with other finalizer writers"
            )
        return found


_BLOCKING = frozenset(
    (
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    )
)


def _with_rules(
    errors: list[FieldError], rules_: rules.Rules, obj: Obj, old: Obj | None, warnings: list[str]
) -> list[FieldError]:
    """Rules are asked only of what is otherwise of the right types and sizes."""
    if not rules_:
        return errors
    if any(e.type in _BLOCKING for e in errors):
        why = (
            "some validation rules were not checked because the object was invalid; correct the existing errors to "
            "complete validation"
        )
        return [*errors, status.invalid_value(values.NOWHERE, None, why)]
    return errors + rules_.check(obj, old, warnings)
