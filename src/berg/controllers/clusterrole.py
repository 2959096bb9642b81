"""ClusterRoles with an aggregation rule: their rules are those of the roles that the rule selects.

Source: pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import Obj


class ClusterRoleAggregationController(APIController):
    name = "clusterrole-aggregation-controller"
    workers = 1

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("clusterroles.rbac.authorization.k8s.io")
        self.roles = ctx.informer("clusterroles.rbac.authorization.k8s.io")
        self.roles.add_handler(self._role, lambda old, new: self._role(new), self._role)

    def _role(self, role: Obj) -> None:
        for other in self.roles.lister:
            if other.get("aggregationRule"):
                self.queue.add(meta.name(other))

    async def reconcile(self, key: str) -> None:
        role = self.roles.lister.get_key(key)
        if role is None or not role.get("aggregationRule"):
            return
        rules: list[Obj] = []
        for text in role["aggregationRule"].get("clusterRoleSelectors") or ():
            selector = Selector.of(text)
            matching = [r for r in self.roles.lister.list(None, selector) if meta.name(r) != key]
            for other in sorted(matching, key=meta.name):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
        if rules == (role.get("rules") or []):
            return
        # Applied, so that who owns the rest of the role is left alone.
        applied = {"apiVersion": self.resource.api_version, "kind": self.resource.kind, "metadata": {"name": key}}
        await self.client.patch(
            self.resource,
            None,
            key,
            {**applied, "rules": rules},
            type="apply",
            field_manager="clusterrole-aggregation-controller",
            force=True,
        )
