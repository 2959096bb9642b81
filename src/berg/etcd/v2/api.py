"""`/v2/…` over HTTP: keys, members, machines, statistics.

Each node of the tree is one durable value beside the v3 keys (`etcd/v2/PATH`), so a write here is as durable as
one there. Writes are decided one after another, because each may depend on the last.

Source: etcd server/etcdserver/api/v2http (3.4, the last release that served it).
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from berg.etcd.member import TERM, Member
from berg.etcd.v2 import tree as t
from berg.etcd.v2.tree import Change, Event, Node, Tree, V2Error
from berg.etcd.v2.watchers import Watcher, Watchers
from berg.storage.embedded.records import Meta
from berg.storage.interface import StoreError

_NODE, _INDEX = "etcd/v2/", "etcd/v2-index"
_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}
WATCH_TIMEOUT_S = 300.0
RETRY_S = 1.0


class V2:
    def __init__(self, member: Member) -> None:
        self._member = member
        self._store = member.store
        self._tree = Tree()
        self._watchers = Watchers()
        self._writing = asyncio.Lock()
        self._expiring = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        meta = self._store.meta
        nodes = [Node(**orjson.loads(value)) for name, value in meta.items() if name.startswith(_NODE)]
        self._tree.apply(int(meta.get(_INDEX, b"3")), sorted(nodes, key=lambda n: n.path), [])
        self._task = asyncio.create_task(self._expire())

    async def stop(self) -> None:
        self._watchers.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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
            return web.Response(text=", ".join(self._member.client_urls))
        if path == "/members" or path.startswith("/members/"):
            return self._members(request, path.removeprefix("/members").strip("/"))
        if path == "/stats/self":
            info = {"leader": f"{self._member.id:x}"}
            return _json(
                {"name": self._member.name, "id": f"{self._member.id:x}", "state": "StateLeader", "leaderInfo": info}
            )
        if path == "/stats/leader":
            return _json({"leader": f"{self._member.id:x}", "followers": {}})
        if path == "/stats/store":
            return _json({"watchers": 0, "expireCount": 0})
        if path == "/auth/enable" and request.method == "GET":
            return _json({"enabled": False})
        if path.startswith("/auth/"):
            return _json({"message": "users and roles are those of the v3 API"}, 501)
        return web.Response(status=404, text="404 page not found\n")

    # -- keys

    async def _keys(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            return web.Response(status=405, headers={"Allow": "HEAD,GET,PUT,POST,DELETE"}, text="Method Not Allowed\n")
        form = _Form({**request.query, **(await request.post() if request.method in ("PUT", "POST") else {})})
        if request.method in ("GET", "HEAD"):
            if form.flag("wait"):
                return await self._wait(request, path, form)
            event = self._tree.get(path, recursive=form.flag("recursive"), sorted=form.flag("sorted"), now=self._now())
            return self._answer(event.body(), 200, event.index)
        if form.flag("wait"):
            raise V2Error(t.INVALID_FIELD, '"wait" can only be used with GET requests')
        form.check()
        async with self._writing:
            change = self._decide(request.method, path, form)
            await self._commit(change)
        event = change.event
        body = event.body()
        if form.flag("noValueOnSuccess") and event.action in ("set", "compareAndSwap", "create", "update"):
            body = {"action": event.action}
        return self._answer(body, 201 if event.created else 200, event.index)

    def _decide(self, method: str, path: str, form: _Form) -> Change:
        tree, now = self._tree, self._now()
        ttl_s = form.ttl_s()
        expires = now + ttl_s if ttl_s else None
        value = None if form.flag("dir") else form.text("value")
        previous = (form.text("prevValue"), form.number("prevIndex", t.INDEX_NAN))
        refresh = form.flag("refresh")
        if method == "POST":
            return tree.create_in_order(path, value, expires, now)
        if method == "DELETE":
            if any(previous):
                return tree.compare_and_delete(path, previous, now)
            return tree.delete(path, now, dir=form.flag("dir"), recursive=form.flag("recursive"))
        exists = form.choice("prevExist")
        if exists is False:
            return tree.put("create", path, value, expires, now)
        if any(previous):
            return tree.compare_and_swap(path, form.text("value"), previous, expires, now, refresh=refresh)
        if exists:
            return tree.update(path, form.text("value"), expires, now, refresh=refresh)
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

        await self._store.write(records, effect)

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
            await response.write(orjson.dumps(event.body()) + b"\n")
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
                    except StoreError:
                        await self._store.clock.sleep(RETRY_S)

    # -- members

    def _members(self, request: web.BaseRequest, rest: str) -> web.Response:
        member = self._member
        ours = {
            "id": f"{member.id:x}",
            "name": member.name,
            "peerURLs": member.peer_urls,
            "clientURLs": member.client_urls,
        }
        headers = {"X-Etcd-Cluster-Id": f"{member.cluster_id:x}"}
        if request.method == "GET":
            if rest == "":
                return _json({"members": [ours]}, headers=headers)
            if rest == "leader":
                return _json(ours, headers=headers)
            return _json({"message": "Not found"}, 404, headers)
        if request.method == "POST":
            text = "etcdserver: re-configuration failed due to not enough started members"
            return _json({"message": text}, 409, headers)
        if rest != ours["id"]:
            return _json({"message": f"No such member: {rest}"}, 404, headers)
        text = "etcdserver: re-configuration failed due to not enough started members"
        return _json({"message": text}, 409, headers)

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
        return _json(body, status, self._headers(index))


class _Form:
    """The parameters of a request, from the address and the body."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

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

    def ttl_s(self) -> int:
        return self.number("ttl", t.TTL_NAN) if self._values.get("ttl") else 0

    def check(self) -> None:
        if self._values.get("prevValue") == "":
            raise V2Error(t.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
        if self.flag("refresh"):
            if self.text("value"):
                raise V2Error(t.REFRESH_VALUE, "A value was provided on a refresh")
            if not self._values.get("ttl"):
                raise V2Error(t.REFRESH_TTL_REQUIRED, "No TTL value set")


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(value) + b"\n", content_type="application/json", headers=headers or {}
    )


__all__ = ["V2", "Event"]
