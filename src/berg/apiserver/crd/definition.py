"""CustomResourceDefinition as a kind: defaults, validation, life cycle.

Source: k8s.io/apiextensions-apiserver pkg/apis/apiextensions, pkg/registry/customresourcedefinition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from berg.apiserver.crd import definition_rules
from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names, status
from berg.machinery.status import FieldError, Obj

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


@strategy_for("apiextensions.k8s.io", "customresourcedefinitions")
class DefinitionStrategy(Strategy):
    namespaced = False
    field_labels = ()
    columns = (cells.NAME, Column("Created At", lambda o: o["metadata"].get("creationTimestamp"), type="date"))

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        own = spec.setdefault("names", {})
        if own.get("kind"):
            own.setdefault("singular", own["kind"].lower())
            own.setdefault("listKind", f"{own['kind']}List")
        conversion = spec.setdefault("conversion", {"strategy": "None"})
        service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)
        stored = [v["name"] for v in spec.get("versions") or () if v.get("storage") and v.get("name")]
        if stored and not (obj.get("status") or {}).get("storedVersions"):
            obj["status"] = {**(obj.get("status") or {}), "storedVersions": stored[:1]}

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        stored = [v["name"] for v in obj["spec"].get("versions") or () if v.get("storage")]
        obj["status"] = {
            "storedVersions": stored[:1],
            "acceptedNames": {"plural": "", "kind": ""},
            "conditions": None,
        }

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        state: Obj = {**(obj.get("status") or {})}
        stored = list(state.get("storedVersions") or ())
        for version in obj["spec"].get("versions") or ():
            if version.get("storage") and version["name"] not in stored:
                stored.append(version["name"])
        state["storedVersions"] = stored
        obj["status"] = state

    def begin_delete(self, obj: Obj) -> None:
        """It stays until its objects are gone."""
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        return [*_own_name(obj), *definition_rules.faults(obj["spec"]), *_stored(obj), *_approved(obj, None)]

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.crd.schema_rules import unknown_formats

        before = set(unknown_formats(old)) if old is not None else set()
        return [f'unrecognized format "{f}"' for f in unknown_formats(obj) if f not in before]

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors = definition_rules.faults(obj["spec"])
        established = _is_true(old, "Established")
        spec, before = obj["spec"], old["spec"]
        fixed: list[tuple[str, Callable[[Obj], Any]]] = [
            ("spec.group", lambda s: s.get("group")),
            ("spec.names.plural", lambda s: s["names"].get("plural")),
        ]
        if established:
            fixed += [("spec.scope", lambda s: s.get("scope")), ("spec.names.kind", lambda s: s["names"].get("kind"))]
        for path, read in fixed:
            if read(spec) != read(before):
                errors.append(status.invalid_value(path, read(spec), "field is immutable"))
        return [*errors, *_stored(obj), *_approved(obj, old)]


def _own_name(obj: Obj) -> list[FieldError]:
    spec, name = obj["spec"], obj["metadata"].get("name") or ""
    faults = names.dns1123_subdomain(name)
    if name != f"{(spec.get('names') or {}).get('plural') or ''}.{spec.get('group') or ''}":
        faults = [*faults, 'must be spec.names.plural+"."+spec.group']
    return [status.invalid_value("metadata.name", name, why) for why in faults]


def _approved(obj: Obj, old: Obj | None) -> list[FieldError]:
    errors = definition_rules.approval_faults(obj, old)
    if obj["spec"].get("preserveUnknownFields") and not (old or {"spec": {}})["spec"].get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        errors.append(status.invalid_value("spec.preserveUnknownFields", True, why))
    return errors


def _is_true(crd: Obj, type_: str) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == type_ and c.get("status") == "True" for c in conditions)


def _stored(obj: Obj) -> list[FieldError]:
    stored = (obj.get("status") or {}).get("storedVersions") or []
    if not stored:
        return [status.invalid_value("status.storedVersions", None, "must have at least one stored version")]
    known = {v["name"] for v in obj["spec"].get("versions") or () if v.get("name")}
    errors = []
    for version in obj["spec"].get("versions") or ():
        if version.get("storage") and version.get("name") not in stored:
            why = f"must have the storage version {version.get('name')}"
            errors.append(status.invalid_value("status.storedVersions", stored, why))
    for i, version in enumerate(stored):
        if version not in known:
            why = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                "spec.versions until a storage migration ensures no data remains persisted in "
                f"{version} and removes {version} from status.storedVersions"
            )
            errors.append(status.invalid_value(f"status.storedVersions[{i}]", version, why))
    return errors
