"""The graph of owners and dependents. No I/O: it is told of objects and says which nodes to look at.

Invariants: every UID named as owner by a node has a node; `a.dependents[b.uid] is b` exactly when b names a's UID
as owner; a virtual node without dependents does not exist.

Source: pkg/controller/garbagecollector/graph_builder.go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from berg.machinery.resources import Resource
from berg.machinery.status import Obj

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
ABSENT_MAX = 5000


class Node:
    __slots__ = (
        "api_version",
        "deleting",
        "deleting_dependents",
        "dependents",
        "kind",
        "name",
        "namespace",
        "orphaning",
        "owners",
        "uid",
        "virtual",
    )

    def __init__(self, uid: str, api_version: str, kind: str, namespace: str, name: str, *, virtual: bool) -> None:
        self.uid, self.api_version, self.kind = uid, api_version, kind
        self.namespace, self.name, self.virtual = namespace, name, virtual
        self.owners: list[Obj] = []
        self.dependents: dict[str, Node] = {}
        self.deleting = self.deleting_dependents = self.orphaning = False

    def blocks(self, owner_uid: str) -> bool:
        """Whether the owner's foreground deletion must wait for this one."""
        return any(o["uid"] == owner_uid and o.get("blockOwnerDeletion") for o in self.owners)


class Graph:
    """`look(uid)` asks for an attempt to delete a node, `orphan(uid)` for releasing its dependents."""

    def __init__(self, look: Callable[[str], None], orphan: Callable[[str], None]) -> None:
        self.nodes: dict[str, Node] = {}
        self.absent: OrderedDict[str, None] = OrderedDict()
        """UIDs seen to go, the last few thousand: a UID never comes back, so no one need be asked"""
        self._look, self._orphan = look, orphan

    def observe(self, r: Resource, obj: Obj) -> None:
        """An object was added or changed."""
        md = obj["metadata"]
        node = self.nodes.get(md["uid"])
        if node is None:
            node = Node(md["uid"], r.api_version, r.kind, md.get("namespace", ""), md["name"], virtual=False)
            self.nodes[node.uid] = node
        elif node.virtual:
            node.virtual = False
            node.api_version, node.kind = r.api_version, r.kind
            if (node.namespace, node.name) != (md.get("namespace", ""), md["name"]):
                # Someone refers to this UID by wrong coordinates: those references may be to nothing.
                node.namespace, node.name = md.get("namespace", ""), md["name"]
                for uid in node.dependents:
                    self._look(uid)
        owners = md.get("ownerReferences") or []
        if owners != node.owners:
            self._set_owners(node, owners)
        self._note_deletion(node, md)

    def _set_owners(self, node: Node, owners: list[Obj]) -> None:
        before, after = {o["uid"] for o in node.owners}, {o["uid"] for o in owners}
        was_blocking = {o["uid"] for o in node.owners if o.get("blockOwnerDeletion")}
        is_blocking = {o["uid"] for o in owners if o.get("blockOwnerDeletion")}
        node.owners = owners
        for uid in before - after:
            owner = self.nodes.get(uid)
            if owner is not None:
                owner.dependents.pop(node.uid, None)
                self._drop_if_idle(owner)
        for o in owners:
            owner = self.nodes.get(o["uid"])
            if owner is None:
                owner = Node(o["uid"], o["apiVersion"], o["kind"], node.namespace, o["name"], virtual=True)
                self.nodes[owner.uid] = owner
                self._look(owner.uid)
            elif not owner.virtual and (owner.name != o["name"] or owner.namespace not in ("", node.namespace)):
                self._look(node.uid)
            owner.dependents[node.uid] = node
            if owner.deleting_dependents and o["uid"] not in before:
                self._look(node.uid)
        for uid in was_blocking - is_blocking:
            owner = self.nodes.get(uid)
            if owner is not None and owner.deleting_dependents:
                self._look(uid)
        if before - after:
            self._look(node.uid)

    def _note_deletion(self, node: Node, md: Obj) -> None:
        if not md.get("deletionTimestamp"):
            return
        finalizers = md.get("finalizers") or ()
        if ORPHAN in finalizers:
            if not node.orphaning:
                node.orphaning = True
                self._orphan(node.uid)
        elif FOREGROUND in finalizers and not node.deleting_dependents:
            node.deleting_dependents = True
            for uid in node.dependents:
                self._look(uid)
            self._look(node.uid)
        node.deleting = True

    def remove(self, obj: Obj) -> None:
        """An object was deleted."""
        node = self.nodes.get(obj["metadata"]["uid"])
        if node is not None:
            self.forget(node)

    def forget(self, node: Node) -> None:
        """The node is gone: what it owned may have to go, what owned it may be waiting for this."""
        self.nodes.pop(node.uid, None)
        if not node.virtual:
            self.absent[node.uid] = None
            if len(self.absent) > ABSENT_MAX:
                self.absent.popitem(last=False)
        for o in node.owners:
            owner = self.nodes.get(o["uid"])
            if owner is None:
                continue
            owner.dependents.pop(node.uid, None)
            if owner.deleting_dependents:
                self._look(owner.uid)
            self._drop_if_idle(owner)
        if node.dependents:
            # Later observations of the dependents find their owner again, as a virtual node.
            ghost = Node(node.uid, node.api_version, node.kind, node.namespace, node.name, virtual=True)
            ghost.dependents = node.dependents
            self.nodes[ghost.uid] = ghost
            for uid in node.dependents:
                self._look(uid)

    def forget_virtual(self, node: Node) -> None:
        """There is no such owner, nor can there be: its dependents are to be looked at."""
        for uid in node.dependents:
            self._look(uid)

    def drop_resource(self, r: Resource) -> None:
        """The resource is no longer served: nothing is known of its objects any more."""
        for node in [n for n in self.nodes.values() if (n.api_version, n.kind) == (r.api_version, r.kind)]:
            if node.virtual:
                continue
            for o in node.owners:
                owner = self.nodes.get(o["uid"])
                if owner is not None:
                    owner.dependents.pop(node.uid, None)
                    self._drop_if_idle(owner)
            if node.dependents:
                node.virtual, node.owners = True, []
                self._look(node.uid)
            else:
                self.nodes.pop(node.uid, None)

    def _drop_if_idle(self, owner: Node) -> None:
        if owner.virtual and not owner.dependents:
            self.nodes.pop(owner.uid, None)
