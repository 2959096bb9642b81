"""Nobody may write a role with rules, or bind a role, beyond what he holds himself, unless he may `escalate` or
`bind`.

Source: kubernetes pkg/registry/rbac (escalation_check.go, policybased storages).
"""

from __future__ import annotations

from berg.apiserver.auth.authorization import MASTERS, Authorizer, AuthzAttributes, settled
from berg.apiserver.auth.rbac import GROUP, RBACAuthorizer, Rule, describe, uncovered
from berg.apiserver.http.message import User
from berg.apiserver.registry.call import Call
from berg.machinery import status
from berg.machinery.status import Obj

ROLES = ("roles", "clusterroles")
BINDINGS = ("rolebindings", "clusterrolebindings")


class EscalationCheck:
    """The guard of the four RBAC registries."""

    def __init__(self, authorizer: Authorizer, rbac: RBACAuthorizer) -> None:
        self._authorizer = authorizer
        self._rbac = rbac

    async def check(self, call: Call, obj: Obj, old: Obj | None) -> None:
        """Raises Forbidden."""
        user = call.user
        if MASTERS in user.groups or not call.admission:
            return
        if old is not None and _only_housekeeping(obj, old):
            return
        if call.registry.storage.plural in ROLES:
            await self._check_role(call, user, obj, old)
        else:
            await self._check_binding(call, user, obj)

    async def _check_role(self, call: Call, user: User, obj: Obj, old: Obj | None) -> None:
        plural = call.registry.storage.plural
        if (
            old is not None
            and obj.get("rules") == old.get("rules")
            and obj.get("aggregationRule") == old.get("aggregationRule")
        ):
            return
        name = obj["metadata"].get("name", "")
        if await self._may(user, "escalate", plural, call.namespace, name):
            return
        if obj.get("aggregationRule"):
            everything = [Rule(r) for r in _EVERYTHING]
            why = self._lacking(user, call.namespace, everything)
            if why:
                text = f"must have cluster-admin privileges to use the aggregationRule: {why}"
                raise status.forbidden(GROUP, plural, name, text)
        why = self._lacking(user, call.namespace, [Rule(r) for r in obj.get("rules") or ()])
        if why:
            raise status.forbidden(GROUP, plural, name, why)

    async def _check_binding(self, call: Call, user: User, obj: Obj) -> None:
        plural = call.registry.storage.plural
        name, ref = obj["metadata"].get("name", ""), obj.get("roleRef") or {}
        role_plural = "roles" if ref.get("kind") == "Role" else "clusterroles"
        if await self._may(user, "bind", role_plural, call.namespace, ref.get("name", "")):
            return
        rules = self._rbac.role_rules(ref, call.namespace)
        if rules is None:
            raise status.not_found(GROUP, role_plural[:-1], ref.get("name", ""))
        why = self._lacking(user, call.namespace, list(rules))
        if why:
            raise status.forbidden(GROUP, plural, name, why)

    async def _may(self, user: User, verb: str, plural: str, namespace: str, name: str) -> bool:
        asked = AuthzAttributes(user, verb, GROUP, "*", plural, "", namespace, name)
        return (await settled(self._authorizer.authorize(asked))).allowed

    def _lacking(self, user: User, namespace: str, wanted: list[Rule]) -> str:
        missing = uncovered(self._rbac.rules_for(user, namespace), wanted)
        if not missing:
            return ""
        groups = " ".join(f'"{g}"' for g in user.groups)
        listed = "\n".join(sorted({describe(m) for m in missing}))
        who = f'user "{user.name}" (groups=[{groups}])'
        return f"{who} is attempting to grant RBAC permissions not currently held:\n{listed}"


_EVERYTHING = ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]})


def _only_housekeeping(obj: Obj, old: Obj) -> bool:
    """Nothing but what the garbage collector needs to write has changed."""
    kept = ("ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation")

    def bare(o: Obj) -> Obj:
        return {**o, "metadata": {k: v for k, v in o["metadata"].items() if k not in kept}}

    return bare(obj) == bare(old)
