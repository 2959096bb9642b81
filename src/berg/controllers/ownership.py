"""Who controls what: adoption of orphans that match, release of what no longer matches.

The reference in the object is the truth; selectors only say what may be adopted. Adoption asks the API server
itself whether the adopter still lives: an informer may not know yet that it is being deleted.

Source: pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from berg.client.informer import Informer
from berg.client.rest import Client
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj

BY_CONTROLLER = "controller"


def controller_uid(obj: Obj) -> str:
    """Without a copy of the reference: this is asked for every event."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref["uid"]
    return ""


def index_by_controller(informer: Informer) -> None:
    """Objects by their controller's UID, and those without one by `orphans/NAMESPACE`."""
    informer.add_index(BY_CONTROLLER, lambda o: (controller_uid(o) or f"orphans/{o['metadata'].get('namespace', '')}",))


def owned_or_orphans(informer: Informer, owner: Obj) -> list[Obj]:
    md = owner["metadata"]
    lister = informer.lister
    return [
        *lister.by_index(BY_CONTROLLER, md["uid"]),
        *lister.by_index(BY_CONTROLLER, f"orphans/{md.get('namespace', '')}"),
    ]


def resolve(informer: Informer, namespace: str, ref: Obj | None, kind: str) -> Obj | None:
    """The controller that `ref` names, if it is of this kind, known, and the same one (by UID)."""
    if ref is None or ref.get("kind") != kind:
        return None
    owner = informer.lister.get(namespace, ref["name"])
    return owner if owner is not None and owner["metadata"]["uid"] == ref["uid"] else None


def api_ref(owner: Obj, r: Resource) -> Obj:
    return meta.controller_ref({**owner, "apiVersion": r.api_version, "kind": r.kind})


class Claims:
    """Claims of one kind of owner on one resource."""

    def __init__(self, client: Client, owners: Resource, owned: Resource) -> None:
        self._client, self._owners, self._owned = client, owners, owned

    async def claim(
        self,
        owner: Obj,
        objects: Iterable[Obj],
        selector: Selector,
        *,
        may_adopt: Callable[[Obj], bool] | None = None,
        finalizers: list[str] | None = None,
    ) -> list[Obj]:
        """Those of `objects` that are `owner`'s, after adopting and releasing. Raises ApiError."""
        uid = owner["metadata"]["uid"]
        found: list[Obj] = []
        lives: bool | None = None
        for obj in objects:
            holder = controller_uid(obj)
            matches = selector.matches(obj["metadata"].get("labels") or {})
            if holder:
                if holder != uid:
                    continue
                if matches:
                    found.append(obj)
                elif not meta.is_deleting(owner):
                    await self._release(owner, obj)
                continue
            if meta.is_deleting(owner) or not matches or meta.is_deleting(obj):
                continue
            if may_adopt is not None and not may_adopt(obj):
                continue
            if lives is None:
                lives = await self._lives(owner)
            if lives and await self._adopt(owner, obj, finalizers):
                found.append(obj)
        return found

    async def _lives(self, owner: Obj) -> bool:
        md = owner["metadata"]
        try:
            fresh = await self._client.get(self._owners, md.get("namespace"), md["name"])
        except ApiError as e:
            if e.code == 404:
                return False
            raise
        return fresh["metadata"]["uid"] == md["uid"] and not meta.is_deleting(fresh)

    async def _adopt(self, owner: Obj, obj: Obj, finalizers: list[str] | None) -> bool:
        md = obj["metadata"]
        patch: Obj = {"metadata": {"ownerReferences": [api_ref(owner, self._owners)], "uid": md["uid"]}}
        if finalizers:
            patch["metadata"]["finalizers"] = finalizers
        try:
            await self._client.patch(self._owned, md.get("namespace"), md["name"], patch, type="strategic")
        except ApiError as e:
            if e.code == 404:
                return False
            raise
        return True

    async def _release(self, owner: Obj, obj: Obj) -> None:
        md = obj["metadata"]
        gone = {"$patch": "delete", "uid": owner["metadata"]["uid"]}
        patch = {"metadata": {"uid": md["uid"], "ownerReferences": [gone]}}
        try:
            await self._client.patch(self._owned, md.get("namespace"), md["name"], patch, type="strategic")
        except ApiError as e:
            # 404: deleted meanwhile; 422: another object of that name. Either way it is not ours any more.
            if e.code not in (404, 422):
                raise
