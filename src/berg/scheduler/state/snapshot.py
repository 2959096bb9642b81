"""The cluster in columns.

Every node is a row. What filters and scores read of all nodes at once stands in numpy arrays with one entry per row;
what they read of few (node objects, pods) in Python lists and dicts. A row of a deleted node is free (`valid` is
False, nothing allocatable) and is given to the next new node.

The snapshot is live: a pod that arrives, is assumed or leaves changes its row, and the row goes into a change log.
Whoever derives something from rows (the class cache) keeps its place in the log and recomputes only those rows.

Invariants: `requested[:, row]` is the sum over `pods[row]`; a pod is in exactly one of `pods[row]` and `ghosts`
(pods bound to a node that is not known yet).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from berg.scheduler.state.arrays import Bools, Ids, Interner, Ints, grown
from berg.scheduler.state.columns import ImageColumn, LabelColumn, node_images, normalized_image
from berg.scheduler.state.counters import Counters
from berg.scheduler.state.podinfo import PodClass, PodInfo, PodParser, Taint
from berg.scheduler.state.requests import amounts

Obj = dict[str, Any]

CPU, MEMORY, STORAGE, PODS = range(4)


class ChangeLog:
    """Rows in the order in which they changed. A place in it stays valid; the oldest entries are dropped."""

    def __init__(self) -> None:
        self._entries: list[int] = []
        self._base = 0

    @property
    def end(self) -> int:
        return self._base + len(self._entries)

    def note(self, row: int, *, node: bool) -> None:
        self._entries.append(row * 2 + node)

    def since(self, place: int) -> list[int] | None:
        """Entries after `place` (row * 2, + 1 when the node itself changed); None when they are gone."""
        return None if place < self._base else self._entries[place - self._base :]

    def trim(self, keep: int) -> None:
        if len(self._entries) > 2 * keep:
            drop = len(self._entries) - keep
            del self._entries[:drop]
            self._base += drop

    def forget(self) -> None:
        """Nothing derived from rows is valid any more."""
        self._base += len(self._entries) + 1
        self._entries.clear()


class Snapshot:
    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self.count = 0
        """nodes there are"""
        self.rows: dict[str, int] = {}
        self.names: list[str] = [""] * capacity
        self.nodes: list[Obj | None] = [None] * capacity
        self.pods: list[dict[str, PodInfo]] = [{} for _ in range(capacity)]
        self.where: dict[str, PodInfo] = {}
        self.ghosts: dict[str, dict[str, PodInfo]] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self.resources = Interner("cpu", "memory", "ephemeral-storage", "pods")
        self.valid: Bools = np.zeros(capacity, dtype=np.bool_)
        self.unschedulable: Bools = np.zeros(capacity, dtype=np.bool_)
        self.allocatable: Ints = np.zeros((8, capacity), dtype=np.int64)
        self.requested: Ints = np.zeros((8, capacity), dtype=np.int64)
        self.nonzero: Ints = np.zeros((2, capacity), dtype=np.int64)
        """cpu and memory requested, with a default for containers that ask for none"""
        self.taints: Ids = np.zeros(capacity, dtype=np.int32)
        """index into `taint_lists`"""
        self.taint_lists: list[tuple[Taint, ...]] = [()]
        self._taint_ids: dict[tuple[Taint, ...], int] = {(): 0}
        self._labels: dict[str, LabelColumn] = {}
        self._images: dict[str, ImageColumn] = {}
        self.ports: dict[tuple[str, int], dict[int, list[str]]] = {}
        """IPs in use, by (protocol, port) and row"""
        self.nominated: dict[int, dict[str, PodInfo]] = {}
        """pods that preemption means to put on a row and that are not there yet"""
        self.counters = Counters(capacity)
        self.log = ChangeLog()
        self.node_changes = 0
        """counts changes to node objects"""

    # Nodes

    def set_node(self, node: Obj) -> int:
        """Adds or replaces a node; answers its row."""
        meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
        name = meta["name"]
        row = self.rows.get(name)
        new = row is None
        if row is None:
            row = self._new_row(name)
        self.nodes[row] = node
        self.unschedulable[row] = bool(spec.get("unschedulable"))
        self.taints[row] = self._taint_list(spec.get("taints") or ())
        self.allocatable[:, row] = 0
        for resource, n in amounts(status.get("allocatable")).items():
            self.allocatable[self.resource(resource), row] = n
        labels = meta.get("labels") or {}
        for column in self._labels.values():
            column.set(row, labels)
        if self._images:
            images = node_images(status.get("images") or ())
            for image in self._images.values():
                image.set(row, images)
        self.node_changes += 1
        self.log.note(row, node=True)
        if new:
            for pod in self.ghosts.pop(name, {}).values():
                self._put(pod, row)
        return row

    def delete_node(self, name: str) -> None:
        row = self.rows.pop(name, None)
        if row is None:
            return
        stranded = dict(self.pods[row])
        for pod in stranded.values():
            self._take(pod, row)
        if stranded:
            self.ghosts[name] = stranded
        self.nominated.pop(row, None)
        self.nodes[row] = None
        self.names[row] = ""
        self.valid[row] = False
        self.unschedulable[row] = False
        self.allocatable[:, row] = 0
        self.taints[row] = 0
        for column in self._labels.values():
            column.set(row, None)
        for image in self._images.values():
            image.set(row, {})
        self.count -= 1
        self._free.append(row)
        self.node_changes += 1
        self.log.note(row, node=True)

    def _new_row(self, name: str) -> int:
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.rows[name] = row
        self.names[row] = name
        self.valid[row] = True
        self.count += 1
        return row

    def _grow(self) -> None:
        old, new = self.capacity, self.capacity * 2
        self.capacity = new
        self.names += [""] * (new - old)
        self.nodes += [None] * (new - old)
        self.pods += [{} for _ in range(new - old)]
        self._free = list(range(new - 1, old - 1, -1))
        for field in ("valid", "unschedulable", "allocatable", "requested", "nonzero", "taints"):
            setattr(self, field, grown(getattr(self, field), new))
        for column in self._labels.values():
            column.grow(new)
        for image in self._images.values():
            image.grow(new)
        self.counters.grow(new)
        self.log.forget()

    def resource(self, name: str) -> int:
        """The column of a resource in `allocatable` and `requested`."""
        index = self.resources.id(name)
        have = self.allocatable.shape[0]
        if index >= have:
            more = np.zeros((have, self.capacity), dtype=np.int64)
            self.allocatable = np.concatenate([self.allocatable, more])
            self.requested = np.concatenate([self.requested, more])
        return index

    def _taint_list(self, taints: Any) -> int:
        key = tuple(Taint(t.get("key", ""), t.get("value") or "", t.get("effect", "")) for t in taints)
        found = self._taint_ids.get(key)
        if found is None:
            found = self._taint_ids[key] = len(self.taint_lists)
            self.taint_lists.append(key)
        return found

    def label(self, key: str) -> LabelColumn:
        found = self._labels.get(key)
        if found is None:
            found = self._labels[key] = LabelColumn(key, self.capacity)
            for row, node in enumerate(self.nodes):
                if node is not None:
                    found.set(row, node["metadata"].get("labels") or {})
        return found

    def image(self, name: str) -> ImageColumn:
        name = normalized_image(name)
        found = self._images.get(name)
        if found is None:
            found = self._images[name] = ImageColumn(name, self.capacity)
            for row, node in enumerate(self.nodes):
                if node is not None:
                    found.set(row, node_images((node.get("status") or {}).get("images") or ()))
        return found

    # Pods

    def add_pod(self, pod: PodInfo) -> None:
        """A pod on `pod.node`, bound or assumed. Replaces what was known of it."""
        if pod.uid in self.where:
            self.remove_pod(pod.uid)
        self.where[pod.uid] = pod
        row = self.rows.get(pod.node)
        if row is None:
            self.ghosts.setdefault(pod.node, {})[pod.uid] = pod
        else:
            self._put(pod, row)

    def remove_pod(self, uid: str) -> PodInfo | None:
        pod = self.where.pop(uid, None)
        if pod is None:
            return None
        row = self.rows.get(pod.node)
        if row is not None:
            self._take(pod, row)
        else:
            ghosts = self.ghosts.get(pod.node, {})
            ghosts.pop(uid, None)
            if not ghosts:
                self.ghosts.pop(pod.node, None)
        return pod

    def _put(self, pod: PodInfo, row: int) -> None:
        self.pods[row][pod.uid] = pod
        self._account(pod, row, 1)

    def _take(self, pod: PodInfo, row: int) -> None:
        del self.pods[row][pod.uid]
        self._account(pod, row, -1)

    def _account(self, pod: PodInfo, row: int, n: int) -> None:
        cls = pod.cls
        requested = self.requested
        for index, amount in self.request(cls):
            requested[index, row] += n * amount
        requested[PODS, row] += n
        self.nonzero[0, row] += n * cls.nonzero[0]
        self.nonzero[1, row] += n * cls.nonzero[1]
        for port in cls.host_ports:
            by_row = self.ports.setdefault((port.protocol, port.port), {})
            ips = by_row.setdefault(row, [])
            if n > 0:
                ips.append(port.ip)
            else:
                ips.remove(port.ip)
                if not ips:
                    del by_row[row]
        self.counters.add(pod, row, n)
        self.log.note(row, node=False)

    def request(self, cls: PodClass) -> tuple[tuple[int, int], ...]:
        """(column, amount) of what a pod of the class asks for."""
        found: tuple[tuple[int, int], ...] | None = cls.memo.get("request")
        if found is None:
            columns = [(self.resource(name), n) for name, n in cls.requests.items() if name != "pods"]
            found = cls.memo["request"] = tuple(sorted(columns))
        return found

    @contextmanager
    def trial(
        self, *, add: Iterable[tuple[PodInfo, int]] = (), remove: Iterable[tuple[PodInfo, int]] = ()
    ) -> Iterator[None]:
        """What if these pods were on these rows, and those were not? Everything is as before on leaving."""
        done: list[tuple[PodInfo, int, bool]] = []
        try:
            for pod, row in remove:
                self._take(pod, row)
                done.append((pod, row, False))
            for pod, row in add:
                self._put(pod, row)
                done.append((pod, row, True))
            yield
        finally:
            for pod, row, added in reversed(done):
                (self._take if added else self._put)(pod, row)

    def sweep(self, parser: PodParser, also: Iterable[PodClass]) -> None:
        """Forgets pod classes that neither a pod here, nor a nominated one, nor one of `also` has."""
        used = {p.cls for p in self.where.values()} | set(also)
        used |= {p.cls for pods in self.nominated.values() for p in pods.values()}
        parser.sweep({c.signature for c in used})
        self.counters.sweep(used)

    # Nominations

    def nominate(self, pod: PodInfo, node: str) -> None:
        row = self.rows.get(node)
        if row is not None:
            self.nominated.setdefault(row, {})[pod.uid] = pod
            self.log.note(row, node=False)

    def denominate(self, uid: str, node: str) -> None:
        row = self.rows.get(node)
        if row is None or uid not in self.nominated.get(row, {}):
            return
        del self.nominated[row][uid]
        if not self.nominated[row]:
            del self.nominated[row]
        self.log.note(row, node=False)
