"""The v2 tree: what each operation makes of it, as pure decisions.

An operation looks at the tree and returns a `Change`: the event to answer and announce, and the nodes that are put
and dropped. Nothing changes until `apply` is told, which the API does when the change is durable. Every change has
the next index; a node keeps the index that made it and the one that last changed it.

Nodes whose name starts with "_" are hidden: a listing of their directory leaves them out.

Source: etcd server/etcdserver/api/v2store, v2error.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

KEY_NOT_FOUND, TEST_FAILED, NOT_FILE, NOT_DIR, NODE_EXISTS, ROOT_READ_ONLY, DIR_NOT_EMPTY = (
    100,
    101,
    102,
    104,
    105,
    107,
    108,
)
UNAUTHORIZED = 110
PREV_VALUE_REQUIRED, TTL_NAN, INDEX_NAN, INVALID_FIELD, INVALID_FORM = 201, 202, 203, 209, 210
REFRESH_VALUE, REFRESH_TTL_REQUIRED = 211, 212
RAFT_INTERNAL, INDEX_CLEARED = 300, 401

_MESSAGES = {
    KEY_NOT_FOUND: "Key not found",
    TEST_FAILED: "Compare failed",
    NOT_FILE: "Not a file",
    NOT_DIR: "Not a directory",
    NODE_EXISTS: "Key already exists",
    ROOT_READ_ONLY: "Root is read only",
    DIR_NOT_EMPTY: "Directory not empty",
    UNAUTHORIZED: "The request requires user authentication",
    PREV_VALUE_REQUIRED: "PrevValue is Required in POST form",
    TTL_NAN: "The given TTL in POST form is not a number",
    INDEX_NAN: "The given index in POST form is not a number",
    INVALID_FIELD: "Invalid field",
    INVALID_FORM: "Invalid POST form",
    REFRESH_VALUE: "Value provided on refresh",
    REFRESH_TTL_REQUIRED: "A TTL must be provided on refresh",
    RAFT_INTERNAL: "Raft Internal Error",
    INDEX_CLEARED: "The event in requested index is outdated and cleared",
}
_STATUS = {
    KEY_NOT_FOUND: 404,
    NOT_FILE: 403,
    DIR_NOT_EMPTY: 403,
    TEST_FAILED: 412,
    UNAUTHORIZED: 401,
    NODE_EXISTS: 412,
    RAFT_INTERNAL: 500,
}


class V2Error(Exception):
    def __init__(self, code: int, cause: str, index: int = 0) -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.index = index

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 400)

    def body(self) -> dict[str, Any]:
        return {"errorCode": self.code, "message": _MESSAGES[self.code], "cause": self.cause, "index": self.index}


@dataclass(slots=True, frozen=True)
class Node:
    path: str
    created: int
    modified: int
    value: str | None = None
    """None: a directory"""
    expires: float | None = None
    """seconds since the epoch"""

    @property
    def is_dir(self) -> bool:
        return self.value is None

    def shown(self, now: float, nodes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """As clients see it, with `nodes` as what is in it."""
        out: dict[str, Any] = {}
        if self.path != "/":
            out["key"] = self.path
        if self.value is None:
            out["dir"] = True
        else:
            out["value"] = self.value
        if self.expires is not None:
            out["expiration"] = datetime.fromtimestamp(self.expires, UTC).isoformat().replace("+00:00", "Z")
            left_s = int(-(-(self.expires - now) // 1))
            if left_s > 0:
                out["ttl"] = left_s
        if nodes:
            out["nodes"] = nodes
        if self.path != "/":
            out["modifiedIndex"], out["createdIndex"] = self.modified, self.created
        return out


@dataclass(slots=True)
class Event:
    action: str
    index: int
    node: dict[str, Any]
    previous: dict[str, Any] | None = None
    refresh: bool = False
    """kept in the history, but nobody is woken"""

    @property
    def path(self) -> str:
        return str(self.node.get("key", "/"))

    @property
    def created(self) -> bool:
        return self.action == "create" or (self.action == "set" and self.previous is None)

    def body(self) -> dict[str, Any]:
        out: dict[str, Any] = {"action": self.action, "node": self.node}
        if self.previous is not None:
            out["prevNode"] = self.previous
        return out


@dataclass(slots=True)
class Change:
    event: Event
    puts: list[Node] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)


def clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def hidden(watched: str, path: str) -> bool:
    """Whether a change of `path` is hidden from who watches `watched` above it."""
    if len(watched) > len(path):
        return False
    return "/_" in posixpath.normpath("/" + path[len(watched) :])


class Tree:
    def __init__(self) -> None:
        self.index = 3  # where a new etcd of one member stands: its own bookkeeping took the first three
        self.nodes: dict[str, Node] = {"/": Node("/", 0, 0)}
        self._children: dict[str, dict[str, None]] = {"/": {}}

    def apply(self, index: int, puts: list[Node], drops: list[str]) -> None:
        self.index = max(self.index, index)
        for path in drops:
            if self.nodes.pop(path, None) is not None:
                self._children.pop(path, None)
                self._children.get(posixpath.dirname(path), {}).pop(path, None)
        for node in puts:
            self.nodes[node.path] = node
            self._children.setdefault(posixpath.dirname(node.path), {})[node.path] = None
            if node.is_dir:
                self._children.setdefault(node.path, {})

    # -- reading

    def find(self, path: str) -> Node:
        node = self.nodes.get(path)
        if node is not None:
            return node
        at = "/"
        for part in path.strip("/").split("/"):
            if not self.nodes[at].is_dir:
                raise V2Error(NOT_DIR, at, self.index)
            at = posixpath.join(at, part)
            if at not in self.nodes:
                raise V2Error(KEY_NOT_FOUND, at, self.index)
        raise V2Error(KEY_NOT_FOUND, path, self.index)

    def get(self, path: str, *, recursive: bool, sorted: bool, now: float) -> Event:
        node = self.find(path)
        nodes = self._listed(path, recursive, sorted, now) if node.is_dir else None
        return Event("get", self.index, node.shown(now, nodes))

    def _listed(self, path: str, recursive: bool, ordered: bool, now: float) -> list[dict[str, Any]]:
        out = []
        children = self._children.get(path, {})
        for child in sorted(children) if ordered else children:
            if posixpath.basename(child).startswith("_"):
                continue
            deeper = recursive and self.nodes[child].is_dir
            out.append(self.nodes[child].shown(now, self._listed(child, recursive, ordered, now) if deeper else None))
        return out

    def under(self, path: str) -> Iterator[str]:
        """Everything in a directory, the deepest first."""
        for child in sorted(self._children.get(path, ())):
            yield from self.under(child)
            yield child

    def soonest(self) -> Node | None:
        expiring = [n for n in self.nodes.values() if n.expires is not None]
        return min(expiring, key=lambda n: n.expires or 0.0, default=None)

    # -- changing

    def put(
        self, action: str, path: str, value: str | None, expires: float | None, now: float, *, refresh: bool = False
    ) -> Change:
        """`action` set (over what is there) or create (only where nothing is); `value` None: a directory."""
        self._not_root(path)
        old = self.nodes.get(path)
        if refresh:
            value = self.find(path).value
        index = self.index + 1
        parents = self._missing_parents(path, index)
        if old is not None:
            if action == "create":
                raise V2Error(NODE_EXISTS, path, self.index)
            if old.is_dir:
                raise V2Error(NOT_FILE, path, self.index)
        node = Node(path, index, index, value, expires)
        event = Event(action, index, node.shown(now), old.shown(now) if old is not None else None, refresh)
        return Change(event, [*parents, node])

    def create_in_order(self, path: str, value: str | None, expires: float | None, now: float) -> Change:
        return self.put("create", clean(f"{path}/{self.index + 1:020d}"), value, expires, now)

    def update(self, path: str, value: str, expires: float | None, now: float, *, refresh: bool = False) -> Change:
        self._not_root(path)
        old = self.find(path)
        if old.is_dir and value:
            raise V2Error(NOT_FILE, path, self.index)
        new = old.value if refresh or old.is_dir else value
        node = replace(old, modified=self.index + 1, value=new, expires=expires)
        kept = replace(node, modified=old.modified) if old.is_dir else node  # a directory does not remember it
        return Change(Event("update", self.index + 1, node.shown(now), old.shown(now), refresh), [kept])

    def compare_and_swap(
        self,
        path: str,
        value: str,
        previous: tuple[str, int],
        expires: float | None,
        now: float,
        *,
        refresh: bool = False,
    ) -> Change:
        self._not_root(path)
        old = self._compared(path, previous)
        node = replace(old, modified=self.index + 1, value=old.value if refresh else value, expires=expires)
        return Change(Event("compareAndSwap", self.index + 1, node.shown(now), old.shown(now), refresh), [node])

    def compare_and_delete(self, path: str, previous: tuple[str, int], now: float) -> Change:
        return self._removed("compareAndDelete", self._compared(path, previous), now)

    def delete(self, path: str, now: float, *, dir: bool, recursive: bool) -> Change:
        self._not_root(path)
        node = self.find(path)
        if node.is_dir:
            if not (dir or recursive):
                raise V2Error(NOT_FILE, path, self.index)
            if self._children.get(path) and not recursive:
                raise V2Error(DIR_NOT_EMPTY, path, self.index)
        return self._removed("delete", node, now)

    def expire(self, node: Node, now: float) -> Change:
        return self._removed("expire", node, now)

    def _removed(self, action: str, node: Node, now: float) -> Change:
        gone: dict[str, Any] = {"key": node.path}
        if node.is_dir:
            gone["dir"] = True
        gone |= {"modifiedIndex": self.index + 1, "createdIndex": node.created}
        return Change(Event(action, self.index + 1, gone, node.shown(now)), drops=[*self.under(node.path), node.path])

    def _compared(self, path: str, previous: tuple[str, int]) -> Node:
        node = self.find(path)
        if node.is_dir:
            raise V2Error(NOT_FILE, path, self.index)
        value, index = previous
        causes = []
        if value and value != node.value:
            causes.append(f"[{value} != {node.value}]")
        if index and index != node.modified:
            causes.append(f"[{index} != {node.modified}]")
        if causes:
            raise V2Error(TEST_FAILED, " ".join(causes), self.index)
        return node

    def _missing_parents(self, path: str, index: int) -> list[Node]:
        out: list[Node] = []
        parent = posixpath.dirname(path)
        while parent not in self.nodes:
            out.append(Node(parent, index, index))
            parent = posixpath.dirname(parent)
        if not self.nodes[parent].is_dir:
            raise V2Error(NOT_DIR, parent, self.index)
        return out[::-1]

    def _not_root(self, path: str) -> None:
        if path == "/":
            raise V2Error(ROOT_READ_ONLY, "/", self.index)
