"""`/v2/members`, `/v2/machines`, `/v2/stats/…`: the cluster of one, as the v2 API tells of it.

Source: etcd etcdserver/api/v2http/client.go, api/v2stats (3.4).
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from berg.etcd.member import Member
from berg.etcd.v2.answer import json_answer, message, not_allowed
from berg.machinery import duration
from berg.storage.interface import StoreError

_NOT_ALONE = "etcdserver: re-configuration failed due to not enough started members"
_COUNTED = ("gets", "sets", "delete", "update", "create", "compareAndSwap", "compareAndDelete")


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def members(member: Member, request: web.BaseRequest, rest: str) -> web.Response:
    """`rest` is what comes behind `/members`."""
    headers = {"X-Etcd-Cluster-Id": f"{member.cluster_id:x}"}
    try:
        if request.method == "GET":
            return json_answer(_read(member, rest), 200, headers)
        await _change(member, request, rest)
    except Refused as e:
        return message(str(e), e.status, headers)
    except StoreError as e:
        return message(str(e), 500, headers)
    return web.Response(status=204, headers=headers)


def _read(member: Member, rest: str) -> Any:
    ours = {
        "id": f"{member.id:x}",
        "name": member.name,
        "peerURLs": member.peer_urls,
        "clientURLs": member.client_urls,
    }
    if rest not in ("", "leader"):
        raise Refused(404, "Not found")
    return ours if rest else {"members": [ours]}


async def _change(member: Member, request: web.BaseRequest, rest: str) -> None:
    if request.method == "POST":
        urls = await _peer_urls(request)
        if set(urls) & set(member.peer_urls):
            raise Refused(409, "membership: peerURL exists")
        # Differs from upstream: this engine is one process; to have more members, move to etcd by a snapshot
        raise Refused(500, _NOT_ALONE)
    urls = await _peer_urls(request) if request.method == "PUT" and _is_id(rest) else []
    if rest.lower().lstrip("0") != f"{member.id:x}":
        raise Refused(404, f"No such member: {rest}")
    if request.method == "DELETE":
        raise Refused(500, _NOT_ALONE)
    await member.set_peer_urls(urls)


def _is_id(text: str) -> bool:
    try:
        return int(text, 16) < 1 << 64
    except ValueError:
        return False


async def _peer_urls(request: web.BaseRequest) -> list[str]:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"Bad Content-Type {kind}, accept application/json")
    body = await request.read()
    try:
        value = orjson.loads(body)
        urls = value.get("peerURLs") or []
        texts = [str(url).strip() for url in urls]
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        raise Refused(400, "unexpected end of JSON input") from None
    if not texts:
        raise Refused(400, "no valid URLs given")
    for url in texts:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix", "unixs"):
            raise Refused(400, f"URL scheme must be http, https, unix, or unixs: {url}")
        if ":" not in parts.netloc:
            raise Refused(400, f'URL address does not have the form "host:port": {url}')
        if parts.path:
            raise Refused(400, f"URL must not contain a path: {url}")
    return sorted(texts)


class Stats:
    """What has been asked of the v2 keys since the start."""

    def __init__(self, now: datetime) -> None:
        self._started = now
        self._counts: Counter[str] = Counter()

    def count(self, action: str, succeeded: bool) -> None:
        self._counts["expireCount" if action == "expire" else action + ("Success" if succeeded else "Fail")] += 1

    def answer(self, member: Member, request: web.BaseRequest, which: str, now: datetime, watchers: int) -> Any:
        """The response for `/stats/WHICH`; None when there is no such page."""
        if which not in ("self", "leader", "store"):
            return None
        if request.method != "GET":
            return not_allowed("GET")
        if which == "leader":
            return json_answer({"leader": f"{member.id:x}", "followers": {}}, newline=False)
        if which == "self":
            return json_answer(self._of_self(member, now), newline=False)
        both = [f"{name}{end}" for name in _COUNTED for end in ("Success", "Fail")]
        counts = {name: self._counts[name] for name in (*both, "expireCount")}
        return json_answer({**counts, "watchers": watchers}, newline=False)

    def _of_self(self, member: Member, now: datetime) -> Any:
        uptime = (now - self._started) // timedelta(microseconds=1) * 1000
        started = self._started.isoformat().replace("+00:00", "Z")
        return {
            "name": member.name,
            "id": f"{member.id:x}",
            "state": "StateLeader",
            "startTime": started,
            "leaderInfo": {"leader": f"{member.id:x}", "uptime": duration.show(uptime), "startTime": started},
            "recvAppendRequestCnt": 0,
            "sendAppendRequestCnt": 0,
        }
