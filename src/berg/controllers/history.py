"""ControllerRevisions: the templates that a StatefulSet or DaemonSet has had.

A revision's data is the patch that makes the template what it was. Two revisions are the same when their data is;
one that comes back gets the newest number instead of a twin.

Source: pkg/controller/history/controller_history.go.
"""

from __future__ import annotations

import orjson

from berg.client.informer import Informer
from berg.client.rest import Client
from berg.controllers.objects import by_age
from berg.controllers.ownership import Claims, api_ref, owned_or_orphans
from berg.machinery import hashing, meta
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

NAME_MAX = 223


class History:
    """The revisions of one kind of owner. `hash_label` is where a revision carries its hash."""

    def __init__(self, client: Client, revisions: Informer, owners: Resource, hash_label: str) -> None:
        self._client, self._revisions, self._owners, self._hash_label = client, revisions, owners, hash_label
        self.resource = resource("controllerrevisions.apps")
        self._claims = Claims(client, owners, self.resource)

    async def of(self, owner: Obj) -> list[Obj]:
        """Oldest first; orphans that match are adopted."""
        selector = Selector.of(owner["spec"].get("selector"))
        found = await self._claims.claim(owner, owned_or_orphans(self._revisions, owner), selector)
        return sorted(found, key=lambda r: (r.get("revision", 0), by_age(r)))

    async def current(self, owner: Obj, revisions: list[Obj], collisions: int | None) -> tuple[Obj, int | None]:
        """The revision of the owner's template as it is now, made or renumbered when need be, and the count of
        hash collisions. A new one is appended to `revisions`."""
        data = revision_data(owner)
        number = max((r.get("revision", 0) for r in revisions), default=0) + 1
        equal = [r for r in revisions if r.get("data") == data]
        if equal:
            found = equal[-1]
            if found is revisions[-1]:
                return found, collisions
            patch = {"revision": number}
            new = await self._client.patch(self.resource, meta.namespace(found), meta.name(found), patch)
            revisions.remove(found)
            revisions.append(new)
            return new, collisions
        return await self._create(owner, revisions, data, number, collisions)

    async def _create(
        self, owner: Obj, revisions: list[Obj], data: Obj, number: int, collisions: int | None
    ) -> tuple[Obj, int | None]:
        template = owner["spec"]["template"]
        while True:
            hash = hashing.hash_of(data, collisions)
            name = f"{meta.name(owner)[:NAME_MAX]}-{hash}"
            labels = {**((template.get("metadata") or {}).get("labels") or {}), self._hash_label: hash}
            body: Obj = {
                "metadata": {
                    "name": name,
                    "namespace": meta.namespace(owner),
                    "labels": labels,
                    "annotations": dict(meta.annotations(owner)),
                    "ownerReferences": [api_ref(owner, self._owners)],
                },
                "data": data,
                "revision": number,
            }
            try:
                made = await self._client.create(self.resource, body)
            except ApiError as e:
                if e.reason != "AlreadyExists":
                    raise
                made = await self._client.get(self.resource, meta.namespace(owner), name)
                if made.get("data") != data or not meta.is_controlled_by(made, owner):
                    collisions = (collisions or 0) + 1
                    continue
            revisions.append(made)
            return made, collisions

    async def trim(self, owner: Obj, revisions: list[Obj], live: set[str]) -> None:
        """Deletes the oldest ones beyond the limit, except for those named in `live`."""
        idle = [r for r in revisions if meta.name(r) not in live]
        limit = owner["spec"].get("revisionHistoryLimit", 10)
        for r in idle[: max(0, len(idle) - limit)]:
            try:
                await self._client.delete(self.resource, meta.namespace(r), meta.name(r))
            except ApiError as e:
                if e.code != 404:
                    raise


def revision_data(owner: Obj) -> Obj:
    """With its keys in order: other programs compare the data's bytes with what Go would write."""
    template = {**owner["spec"]["template"], "$patch": "replace"}
    ordered: Obj = orjson.loads(orjson.dumps({"spec": {"template": template}}, option=orjson.OPT_SORT_KEYS))
    return ordered


def template_of(revision: Obj) -> Obj:
    return {k: v for k, v in revision["data"]["spec"]["template"].items() if k != "$patch"}
