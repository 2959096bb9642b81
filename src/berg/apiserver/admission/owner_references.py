"""OwnerReferencesPermissionEnforcement: who may not delete an object may not tie it to an owner, nor keep an owner
from being deleted whose finalizers he may not set.

Source: kubernetes plugin/pkg/admission/gc.
"""

from __future__ import annotations

from berg.apiserver.admission import sight
from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.auth.authorization import AuthzAttributes, settled
from berg.machinery.status import Obj


def _references(obj: Obj | None) -> list[Obj]:
    return ((obj or {}).get("metadata") or {}).get("ownerReferences") or []


def _bare(ref: Obj) -> Obj:
    return {k: v for k, v in ref.items() if k != "blockOwnerDeletion"}


class OwnerReferencesPermissionEnforcement(Plugin):
    name = "OwnerReferencesPermissionEnforcement"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    subresources = None

    def handles(self, a: Attributes) -> bool:
        return _references(a.obj) != _references(a.old)

    async def validate(self, a: Attributes) -> None:
        new, old = _references(a.obj), _references(a.old)
        changed = a.operation == UPDATE and [_bare(r) for r in new] != [_bare(r) for r in old]
        if changed and not await self.api.authorize(a.user, "delete", a.resource, a.namespace, a.name):
            raise forbidden(a, "cannot set an ownerRef on a resource you can't delete: , <nil>")
        blocking = [r for r in new if r.get("blockOwnerDeletion")]
        if not blocking or await self._may_finalize_anything(a):
            return
        known = {r.get("uid") for r in old if r.get("blockOwnerDeletion")}
        for ref in blocking:
            if ref.get("uid") in known:
                continue
            group, _, version = (ref.get("apiVersion") or "").rpartition("/")
            owner = sight.by_kind(self.api, group, version, ref.get("kind") or "")
            if owner is None:
                kind, named = ref.get("kind") or "", ref.get("apiVersion") or ""
                where = f"cannot find RESTMapping for APIVersion {named} Kind {kind}"
                why = f'no matches for kind "{kind}" in version "{named}"'
                raise forbidden(a, f"cannot set blockOwnerDeletion in this case because {where}: {why}")
            namespace = a.namespace if owner.namespaced else ""
            if not await self.api.authorize(a.user, "update", owner, namespace, ref.get("name") or "", "finalizers"):
                raise forbidden(
                    a,
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set "
                    "finalizers on: , <nil>",
                )

    async def _may_finalize_anything(self, a: Attributes) -> bool:
        """Then no owner needs to be known."""
        verdict = await settled(self.api.decide(AuthzAttributes(a.user, "update", "*", "*", "*", "finalizers")))
        return verdict.allowed
