"""Roles and ClusterRoles. (That nobody grants more than they have is checked by the registry's escalation check.)

Source: kubernetes pkg/registry/rbac, pkg/apis/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, required


class _RoleStrategy(Strategy):
    has_status = False
    generation = False
    allow_create_on_update = True
    columns: Sequence[Column] = [cells.NAME, Column("Created At", cells.at("metadata.creationTimestamp"), "date")]

    def default(self, obj: Obj) -> None:
        obj.setdefault("rules", None)

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        return names.path_segment(name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        for i, rule in enumerate(obj.get("rules") or ()):
            errors += validate_rule(rule, self.namespaced, f"rules[{i}]")
        return errors


@strategy_for("rbac.authorization.k8s.io", "roles")
class RoleStrategy(_RoleStrategy):
    metadata_checks = (1, 1, 1)


@strategy_for("rbac.authorization.k8s.io", "clusterroles")
class ClusterRoleStrategy(_RoleStrategy):
    metadata_checks = (1, 1, 1)
    namespaced = False

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.label_selectors import validate_selector

        errors = super().validate(ctx, obj)
        if (aggregation := obj.get("aggregationRule")) is not None:
            selectors = aggregation.get("clusterRoleSelectors") or ()
            if not selectors:
                errors.append(
                    required(
                        "aggregationRule.clusterRoleSelectors",
                        "at least one clusterRoleSelector required if aggregationRule is non-nil",
                    )
                )
            for i, selector in enumerate(selectors):
                at = f"aggregationRule.clusterRoleSelectors[{i}]"
                if faults := validate_selector(selector, at):
                    errors += [*faults, invalid_value(at, None, "invalid label selector.")]
        return errors


def validate_rule(rule: Obj, namespaced: bool, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    if urls := rule.get("nonResourceURLs"):
        if namespaced:
            errors.append(
                invalid_value(f"{path}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
            )
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            errors.append(
                invalid_value(
                    f"{path}.nonResourceURLs",
                    urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                )
            )
        return errors
    if not rule.get("apiGroups"):
        errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors
