"""`/v2/…` over HTTP: keys, members, machines, statistics.

Each node of the tree is one durable value beside the v3 keys (`etcd/v2/PATH`), so a write here is as durable as
one there. Writes are decided one after another, because each may depend on the last.

Source: etcd server/etcdserver/api/v2http (3.4, the last release that served it).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from berg.etcd.member import TERM, Member
from berg.etcd.mux import certificate_name
from berg.etcd.v2 import tree as t
from berg.etcd.v2.answer import encode, json_answer, message, not_allowed
from berg.etcd.v2.datadir import LONG, DataDir
from berg.etcd.v2.members import Stats, members
from berg.etcd.v2.tree import Change, Event, Node, Tree, V2Error
from berg.etcd.v2.users import NOT_ENOUGH, Refused, V2Users
from berg.etcd.v2.watchers import Watcher, Watchers
from berg.machinery.tasks import end
from berg.storage.embedded.records import Meta
from berg.storage.interface import StoreError

log = logging.getLogger(__name__)

_NODE, _INDEX = "etcd/v2/", "etcd/v2-index"
_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}
WATCH_TIMEOUT_S = 300.0
RETRY_S = 1.0


class V2:
    def __init__(self, member: Member, *, by_certificate: bool = False, data_dir: Path | None = None) -> None:
        """`by_certificate`: who shows no password is who the client certificate names. `data_dir`: where
        `etcdctl backup` looks; None: nowhere."""
        self._member = member
        self._users = V2Users(member.store, _certificate_name if by_certificate else lambda request: "")
        self._store = member.store
        self._tree = Tree()
        self._data_dir = data_dir
        self._shadow: DataDir | None = None
        self._watchers = Watchers()
        self._stats = Stats(member.store.clock.now())
        self._writing = asyncio.Lock()
        self._expiring = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        meta = self._store.meta
        nodes = [Node(**orjson.loads(value)) for name, value in meta.items() if name.startswith(_NODE)]
        self._tree.apply(int(meta.get(_INDEX, b"3")), sorted(nodes, key=lambda n: n.path), [])
        if _INDEX in meta:
            self._watchers.starts = self._tree.index + 1  # what happened before is forgotten
        if self._data_dir is not None:
            self._shadow = DataDir(self._data_dir, self._member.id, self._member.cluster_id)
            self._begin()
        self._task = asyncio.create_task(self._expire())

    async def stop(self) -> None:
        self._watchers.end()
        await end(self._task)
        if self._shadow is not None:
            self._shadow.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/v2")
        if path == "/keys" or path.startswith("/keys/"):
            try:
                return await self._keys(request, t.clean(path.removeprefix("/keys")))
            except V2Error as e:
                return self._answer(e.body(), e.status, e.index)
            except StoreError as e:
                error = V2Error(t.RAFT_INTERNAL, str(e), self._tree.index)
                return self._answer(error.body(), error.status, error.index)
        if path == "/machines":
            if request.method not in ("GET", "HEAD"):
                return not_allowed("GET,HEAD")
            return web.Response(text=", ".join(self._member.client_urls))
        if path == "/members" or path.startswith("/members/"):
            return await self._members(request, path.removeprefix("/members").strip("/"))
        if path.startswith("/stats/"):
            which = path.removeprefix("/stats/")
            found = self._stats.answer(self._member, request, which, self._store.clock.now(), len(self._watchers))
            if found is not None:
                return found
        if path.startswith("/auth/"):
            return await self._auth(request, path.removeprefix("/auth"))
        return web.Response(status=404, text="404 page not found\n")

    # -- keys

    async def _keys(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            return web.Response(status=405, headers={"Allow": "HEAD,GET,PUT,POST,DELETE"}, text="Method Not Allowed\n")
        form = _Form({**request.query, **(await request.post() if request.method in ("PUT", "POST") else {})})
        form.check(request.method)
        asked = path + "/" if request.path.endswith("/") and path != "/" else path
        if not await self._users.may(request, asked, recursive=form.flag("recursive")):
            raise V2Error(t.UNAUTHORIZED, NOT_ENOUGH)
        if request.method in ("GET", "HEAD"):
            if form.flag("wait"):
                return await self._wait(request, path, form)
            try:
                event = self._tree.get(
                    path, recursive=form.flag("recursive"), sorted=form.flag("sorted"), now=self._now()
                )
            except V2Error:
                self._stats.count("gets", False)
                raise
            self._stats.count("gets", True)
            return self._answer(event.body(), 200, event.index)
        # shielded: a client that goes away must not leave the next one to decide on a tree that is about to change
        change = await asyncio.shield(asyncio.ensure_future(self._write(path, form)))
        event = change.event
        body = event.body()
        if form.flag("noValueOnSuccess") and event.action in ("set", "compareAndSwap", "create", "update"):
            body = {"action": event.action}
        return self._answer(body, 201 if event.created else 200, event.index)

    async def _write(self, path: str, form: _Form) -> Change:
        action = _action(form)
        async with self._writing:
            try:
                change = self._decide(action, path, form)
            except V2Error:
                self._stats.count(action, False)
                raise
            await self._commit(change)
        self._stats.count(action, True)
        return change

    def _decide(self, action: str, path: str, form: _Form) -> Change:
        tree, now = self._tree, self._now()
        ttl_s = form.ttl_s()
        expires = None if ttl_s is None else now + ttl_s
        value = None if form.flag("dir") else form.text("value")
        previous = form.previous()
        refresh = form.flag("refresh")
        match action:
            case "compareAndDelete":
                return tree.compare_and_delete(path, previous, now)
            case "delete":
                return tree.delete(path, now, dir=form.flag("dir"), recursive=form.flag("recursive"))
            case "compareAndSwap":
                return tree.compare_and_swap(path, form.text("value"), previous, expires, now, refresh=refresh)
            case "update":
                return tree.update(path, form.text("value"), expires, now, refresh=refresh)
            case "create" if form.method == "POST":
                return tree.create_in_order(path, value, expires, now)
            case "create":
                return tree.put("create", path, value, expires, now)
        return tree.put("set", path, value, expires, now, refresh=refresh)

    async def _commit(self, change: Change) -> None:
        index = change.event.index
        records = [Meta(_NODE + node.path, orjson.dumps(node)) for node in change.puts]
        records += [Meta(_NODE + path, b"") for path in change.drops]
        records.append(Meta(_INDEX, b"%d" % index))

        def effect() -> None:
            for record in records:
                if record.value:
                    self._store.meta[record.name] = record.value
                else:
                    self._store.meta.pop(record.name, None)
            self._tree.apply(index, change.puts, change.drops)
            self._watchers.publish(change.event, change.drops)
            self._expiring.set()
            self._shadow_too(change)

        await self._store.write(records, effect)

    def _shadow_too(self, change: Change) -> None:
        if self._shadow is None:
            return
        try:
            self._shadow.append(change)
        except OSError:
            log.exception("the files for etcdctl backup cannot be written; they will be at the next start")
            self._shadow = None
            return
        if self._shadow.entries >= LONG:
            self._begin()

    def _begin(self) -> None:
        """The files that `etcdctl backup` reads, as of now."""
        assert self._shadow is not None
        try:
            self._shadow.begin(self._tree.index, self._tree.nodes, self._users.state())
        except OSError:
            log.exception("the files for etcdctl backup cannot be written; they will be at the next start")
            self._shadow = None

    # -- watching

    async def _wait(self, request: web.BaseRequest, path: str, form: _Form) -> web.StreamResponse:
        since = form.number("waitIndex", t.INDEX_NAN)
        stream = form.flag("stream")
        watcher = self._watchers.open(path, recursive=form.flag("recursive"), since=since, index=self._tree.index)
        response = web.StreamResponse(headers={"Content-Type": "application/json", **self._headers(self._tree.index)})
        try:
            response.enable_chunked_encoding()
            await response.prepare(request)
            async with asyncio.timeout(WATCH_TIMEOUT_S):
                await self._tell(response, watcher, stream)
        except TimeoutError:
            pass
        except ConnectionError:
            return response
        finally:
            self._watchers.close(watcher)
        await response.write_eof()
        return response

    async def _tell(self, response: web.StreamResponse, watcher: Watcher, stream: bool) -> None:
        while (event := await watcher.events.get()) is not None:
            await response.write(encode(event.body()) + b"\n")
            if not stream:
                return

    async def _expire(self) -> None:
        while True:
            self._expiring.clear()
            node = self._tree.soonest()
            if node is None or node.expires is None:
                await self._expiring.wait()
                continue
            left_s = node.expires - self._now()
            if left_s > 0:
                # sooner than it, something may be written that expires sooner still
                await self._store.clock.sleep(min(left_s, 1.0))
                continue
            async with self._writing:
                if self._tree.nodes.get(node.path) is node:
                    try:
                        await self._commit(self._tree.expire(node, self._now()))
                        self._stats.count("expire", True)
                    except StoreError:
                        await self._store.clock.sleep(RETRY_S)

    async def _auth(self, request: web.BaseRequest, path: str) -> web.Response:
        headers = {"X-Etcd-Cluster-Id": f"{self._member.cluster_id:x}"}
        try:
            status, body = await asyncio.shield(asyncio.ensure_future(self._users.handle(request, path)))
            if request.method != "GET" and self._shadow is not None:
                self._begin()
        except Refused as e:
            if e.status == 405:
                return not_allowed(e.text)
            if not e.text:
                return web.Response(status=404, text="404 page not found\n")
            return message(e.text, e.status, headers if e.text.startswith("auth: ") or "JSON" in e.text else {})
        except StoreError as e:
            return message(str(e), 500, headers)
        if body is None:
            return web.Response(status=status, headers=headers, content_type="application/json")
        return json_answer(body, status, headers)

    async def _members(self, request: web.BaseRequest, rest: str) -> web.Response:
        if request.method not in ("GET", "POST", "DELETE", "PUT"):
            return not_allowed("GET,POST,DELETE,PUT")
        if request.method != "GET" and not await self._users.is_root(request):
            return message(NOT_ENOUGH, 401)
        if request.method in ("DELETE", "PUT") and not rest:
            return web.Response(status=405, text="Method Not Allowed\n")
        return await members(self._member, request, rest)

    # -- answers

    def _now(self) -> float:
        return self._store.clock.now().timestamp()

    def _headers(self, index: int) -> dict[str, str]:
        return {
            "X-Etcd-Cluster-Id": f"{self._member.cluster_id:x}",
            "X-Etcd-Index": str(index),
            "X-Raft-Index": str(self._member.raft_index),
            "X-Raft-Term": str(TERM),
        }

    def _answer(self, body: dict[str, Any], status: int, index: int) -> web.Response:
        return json_answer(body, status, self._headers(index))


class _Form:
    """The parameters of a request, from the address and the body."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.method = ""

    def text(self, name: str) -> str:
        return str(self._values.get(name, ""))

    def choice(self, name: str) -> bool | None:
        value = self._values.get(name)
        if value is None:
            return None
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        quoted = name if name in ("prevExist", "refresh") else f'"{name}"'
        raise V2Error(t.INVALID_FIELD, f"invalid value for {quoted}")

    def flag(self, name: str) -> bool:
        return self.choice(name) or False

    def number(self, name: str, otherwise: int) -> int:
        value = self._values.get(name)
        if value is None:
            return 0
        if not str(value).isdigit():
            raise V2Error(otherwise, f'invalid value for "{name}"')
        return int(value)

    def ttl_s(self) -> int | None:
        return self.number("ttl", t.TTL_NAN) if self._values.get("ttl") else None

    def previous(self) -> tuple[str, int]:
        return self.text("prevValue"), self.number("prevIndex", t.INDEX_NAN)

    def check(self, method: str) -> None:
        """Everything that can be wrong with the parameters alone, in etcd's order. Raises V2Error."""
        self.method = method
        for name in ("prevIndex", "waitIndex"):
            self.number(name, t.INDEX_NAN)
        for name in ("recursive", "sorted", "wait", "dir", "quorum", "stream"):
            self.flag(name)
        if self.flag("wait") and method != "GET":
            raise V2Error(t.INVALID_FIELD, '"wait" can only be used with GET requests')
        if self._values.get("prevValue") == "":
            raise V2Error(t.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
        self.flag("noValueOnSuccess")
        self.ttl_s()
        self.choice("prevExist")
        if self.flag("refresh"):
            if self.text("value"):
                raise V2Error(t.REFRESH_VALUE, "A value was provided on a refresh")
            if not self._values.get("ttl"):
                raise V2Error(t.REFRESH_TTL_REQUIRED, "No TTL value set")


def _action(form: _Form) -> str:
    """What the request asks for, in the words of events and statistics."""
    conditions = any(form.previous())
    if form.method == "DELETE":
        return "compareAndDelete" if conditions else "delete"
    exists = form.choice("prevExist")
    if form.method == "POST" or exists is False:
        return "create"
    if conditions:
        return "compareAndSwap"
    return "update" if exists else "sets"


def _certificate_name(request: web.BaseRequest) -> str:
    return "" if request.transport is None else certificate_name(request.transport)


__all__ = ["V2", "Event"]
