"""RoleBindings and ClusterRoleBindings.

Source: kubernetes pkg/registry/rbac, pkg/apis/rbac/validation, pkg/apis/rbac/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, not_supported, required

GROUP = "rbac.authorization.k8s.io"


def _subjects(kind: str) -> Callable[[Obj], str]:
    def value(obj: Obj) -> str:
        return ", ".join(
            f"{s.get('namespace') or ''}/{s.get('name')}" if kind == "ServiceAccount" else s.get("name") or ""
            for s in obj.get("subjects") or ()
            if s.get("kind") == kind
        )

    return value


def _role(obj: Obj) -> str:
    ref = obj.get("roleRef") or {}
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


class _BindingStrategy(Strategy):
    has_status = False
    generation = False
    allow_create_on_update = True
    role_kinds: Sequence[str] = ("ClusterRole",)
    columns = [
        cells.NAME,
        Column("Role", _role),
        cells.AGE,
        Column("Users", _subjects("User"), priority=1),
        Column("Groups", _subjects("Group"), priority=1),
        Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
    ]

    def default(self, obj: Obj) -> None:
        ref = obj.get("roleRef")
        if ref is not None and not ref.get("apiGroup"):
            ref["apiGroup"] = GROUP
        for subject in obj.get("subjects") or ():
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.path_segment(name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        ref = obj.get("roleRef") or {}
        errors: list[FieldError] = []
        if ref.get("apiGroup") != GROUP:
            errors.append(not_supported("roleRef.apiGroup", ref.get("apiGroup") or "", [GROUP]))
        if ref.get("kind") not in self.role_kinds:
            errors.append(not_supported("roleRef.kind", ref.get("kind") or "", list(self.role_kinds)))
        if not ref.get("name"):
            errors.append(required("roleRef.name"))
        else:
            errors += [invalid_value("roleRef.name", ref["name"], text) for text in names.path_segment(ref["name"])]
        for i, subject in enumerate(obj.get("subjects") or ()):
            errors += self._subject(subject, f"subjects[{i}]")
        return errors

    def _subject(self, subject: Obj, path: str) -> list[FieldError]:
        errors: list[FieldError] = []
        name, kind, group = subject.get("name") or "", subject.get("kind") or "", subject.get("apiGroup") or ""
        if not name:
            errors.append(required(f"{path}.name"))
        if kind == "ServiceAccount":
            if name:
                errors += [invalid_value(f"{path}.name", name, text) for text in names.dns1123_subdomain(name)]
            if group:
                errors.append(not_supported(f"{path}.apiGroup", group, [""]))
            if not subject.get("namespace") and not self.namespaced:
                errors.append(required(f"{path}.namespace"))
        elif kind in ("User", "Group"):
            if group != GROUP:
                errors.append(not_supported(f"{path}.apiGroup", group, [GROUP]))
        else:
            errors.append(not_supported(f"{path}.kind", kind, ["ServiceAccount", "User", "Group"]))
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(ctx, obj)
        if obj.get("roleRef") != old.get("roleRef"):
            errors.append(invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef"))
        return errors


@strategy_for(GROUP, "rolebindings")
class RoleBindingStrategy(_BindingStrategy):
    metadata_checks = (1, 1, 1)
    role_kinds = ("Role", "ClusterRole")


@strategy_for(GROUP, "clusterrolebindings")
class ClusterRoleBindingStrategy(_BindingStrategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
