"""IPAddresses: who holds a cluster IP.

Source: KEP-1880; kubernetes pkg/apis/networking/validation ValidateIPAddress.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import addresses, cells
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, required


def _parent(obj: Obj) -> str:
    ref = (obj.get("spec") or {}).get("parentRef")
    if not ref:
        return "<none>"
    resource = ref.get("resource") or ""
    text = (f"{resource}.{ref['group']}" if ref.get("group") else resource).lower()
    if ref.get("namespace"):
        text += f"/{ref['namespace']}"
    return f"{text}/{ref.get('name') or ''}"


@strategy_for("networking.k8s.io", "ipaddresses")
class IPAddressStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
    has_status = False
    generation = False
    columns = [cells.NAME, Column("ParentRef", _parent)]

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return [e.detail for e in addresses.strict_ip("", name)]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        ref = (obj.get("spec") or {}).get("parentRef")
        if ref is None:
            return [required("spec.parentRef")]
        errors = [
            invalid_value("spec.parentRef.group", ref["group"], text)
            for text in (names.dns1123_subdomain(ref["group"]) if ref.get("group") else ())
        ]
        for key in ("resource", "name", "namespace"):
            if ref.get(key):
                errors += [invalid_value(f"spec.parentRef.{key}", ref[key], t) for t in names.path_segment(ref[key])]
            elif key != "namespace":
                errors.append(required(f"spec.parentRef.{key}"))
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return self.validate(ctx, obj) + immutable(obj, old, "spec.parentRef")
