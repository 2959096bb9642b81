"""An API server in miniature: enough of its behaviour for clients and controllers, in memory, as a Transport.

It keeps any resource by its path, with uid, resourceVersion, generation, generateName, finalizers, status and
scale subresources, merge, JSON and (simply) strategic patches, label and field selectors, watches with
bookmarks and initial events.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from berg.machinery import status
from berg.machinery.clock import Clock, FakeClock, rfc3339
from berg.machinery.labels import Selector
from berg.machinery.status import ApiError

Obj = dict[str, Any]

PATH = re.compile(
    r"^(?:/api/(?P<v1>v1)|/apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?$"
)
GRACEFUL = {"pods"}


class Answer:
    def __init__(self, code: int, body: bytes = b"", stream: AsyncIterator[bytes] | None = None, headers: Any = None):
        self.status = code
        self.headers: Mapping[str, str] = headers or {}
        self._body, self._stream = body, stream
        self.closed = False

    async def read(self) -> bytes:
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._stream is None:
            yield self._body
            return
        async for chunk in self._stream:
            yield chunk

    def close(self) -> None:
        self.closed = True


class FakeAPI:
    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.version = 100
        self.objects: dict[tuple[str, str], dict[str, Obj]] = {}
        self.log: list[tuple[str, str]] = []
        self.watch_list = True
        self.answer_hook: Callable[[str, str, Any], ApiError | None] | None = None
        self.discovery: list[Obj] | None = None
        self._ids = itertools.count(1)
        self._watchers: list[tuple[tuple[str, str], str, Any, asyncio.Queue[bytes | None]]] = []

    # -- for tests

    def put(self, group: str, plural: str, obj: Obj) -> Obj:
        """Stores an object as the server would, without a request."""
        obj = copy.deepcopy(obj)
        md = obj["metadata"]
        md.setdefault("uid", f"uid-{next(self._ids)}")
        md.setdefault("creationTimestamp", rfc3339(self.clock.now()))
        md.setdefault("generation", 1)
        store = self.objects.setdefault((group, plural), {})
        self._store(group, plural, obj, "MODIFIED" if self._key(obj) in store else "ADDED")
        return obj

    def all(self, plural: str, group: str = "") -> list[Obj]:
        return list(self.objects.get((group, plural), {}).values())

    def one(self, plural: str, key: str, group: str = "") -> Obj | None:
        return self.objects.get((group, plural), {}).get(key)

    def drop(self, plural: str, key: str, group: str = "") -> None:
        self._remove(group, plural, self.objects[group, plural][key])

    def change(self, plural: str, key: str, patch: Obj, group: str = "") -> Obj:
        new = merge(self.objects[group, plural][key], patch)
        self._store(group, plural, new, "MODIFIED")
        return new

    def break_watches(self) -> None:
        for *_, queue in self._watchers:
            queue.put_nowait(None)

    # -- Transport

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        query = query or {}
        self.log.append((method if "watch" not in query else "WATCH", path))
        await asyncio.sleep(0)
        try:
            doc = orjson.loads(body) if body else None
            if self.answer_hook is not None and (error := self.answer_hook(method, path, doc)) is not None:
                raise error
            return self._serve(method, path, dict(query), headers or {}, doc)
        except ApiError as e:
            h = {"Retry-After": str(e.retry_after_s)} if e.retry_after_s is not None else {}
            return Answer(e.code, orjson.dumps(e.to_status()), headers=h)

    async def close(self) -> None:
        pass

    def _serve(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], doc: Any) -> Answer:
        if path in ("/api", "/apis"):
            items = [g for g in self.discovery or [] if (path == "/api") == (g["metadata"].get("name", "") == "")]
            return ok({"kind": "APIGroupDiscoveryList", "items": items})
        m = PATH.match(unquote(path))
        if m is None:
            raise status.not_found("", path, "")
        group, plural = m["group"] or "", m["plural"]
        ns, name, sub = m["namespace"], m["name"], m["sub"]
        if ns and name is None and plural in ("status", "finalize"):
            plural, ns, name, sub = "namespaces", None, ns, plural
        if (group, plural) == ("", "namespaces") and ns:
            raise status.not_found("", path, "")
        api_version = f"{group}/{m['version']}" if group else "v1"
        store = self.objects.setdefault((group, plural), {})
        key = f"{ns}/{name}" if ns else name or ""
        if name is None:
            if method == "POST" and plural.endswith("reviews"):
                return ok(doc)
            if method == "POST":
                return self._create(group, plural, ns, api_version, doc)
            if method == "DELETE":
                for obj in self._select(store, ns, query):
                    self._delete(group, plural, obj, doc)
                return ok({"kind": "Status", "status": "Success"})
            if "watch" in query:
                return self._watch(group, plural, ns or "", query)
            items = self._select(store, ns, query)
            return ok({"kind": "List", "metadata": {"resourceVersion": str(self.version)}, "items": items})
        if method == "POST" and sub == "eviction":
            self._delete(group, plural, self._get(group, plural, key), {})
            return ok({"kind": "Status", "status": "Success"})
        if method == "POST" and sub == "token":
            return ok({"status": {"token": "t"}})
        old = self._get(group, plural, key)
        if method == "GET":
            return ok(self._scale(old) if sub == "scale" else old)
        if method == "DELETE":
            self._delete(group, plural, old, doc)
            return ok({"kind": "Status", "status": "Success"})
        if method == "PUT":
            new = doc
            if sub == "scale":
                new = merge(old, {"spec": {"replicas": doc["spec"]["replicas"]}})
                sub = None
            elif sub == "finalize":
                new = merge(old, {"spec": {"finalizers": doc["spec"].get("finalizers") or []}})
                sub = None
            elif sub == "approval":
                sub = "status"
        elif method == "PATCH":
            kind = headers.get("Content-Type", "")
            new = json_patch(old, doc) if "json-patch" in kind else merge(old, doc, strategic="strategic" in kind)
        else:
            raise status.method_not_supported(group, plural, method)
        return ok(self._update(group, plural, old, new, sub))

    # -- verbs

    def _create(self, group: str, plural: str, ns: str | None, api_version: str, obj: Obj) -> Answer:
        obj = copy.deepcopy(obj)
        md = obj.setdefault("metadata", {})
        if ns:
            md["namespace"] = ns
        if not md.get("name"):
            if "generateName" not in md:
                raise status.bad_request("name or generateName is required")
            md["name"] = f"{md['generateName']}{next(self._ids):05d}"
        store = self.objects.setdefault((group, plural), {})
        if self._key(obj) in store:
            raise status.already_exists(group, plural, md["name"])
        md["uid"] = f"uid-{next(self._ids)}"
        md["creationTimestamp"] = rfc3339(self.clock.now())
        md["generation"] = 1
        if plural == "pods":
            obj.setdefault("status", {"phase": "Pending"})
        if (group, plural) == ("", "namespaces"):
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            obj.setdefault("status", {"phase": "Active"})
        self._store(group, plural, obj, "ADDED")
        return ok(obj, 201)

    def _update(self, group: str, plural: str, old: Obj, new: Obj, sub: str | None) -> Obj:
        new = copy.deepcopy(new)
        md = new["metadata"]
        rv = md.get("resourceVersion")
        if rv and rv != old["metadata"]["resourceVersion"]:
            raise status.conflict(group, plural, md["name"], status.OPTIMISTIC_LOCK)
        if md.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise status.conflict(group, plural, md["name"], "Precondition failed: UID in precondition")
        if sub == "status":
            new = {**old, "status": new.get("status", {}), "metadata": {**old["metadata"]}}
        elif "status" in old and plural not in ("configmaps",):
            new["status"] = old["status"]
        for k in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if k in old["metadata"]:
                new["metadata"][k] = old["metadata"][k]
        same = {k: v for k, v in new.items() if k not in ("metadata", "status")} == {
            k: v for k, v in old.items() if k not in ("metadata", "status")
        }
        new["metadata"]["generation"] = old["metadata"].get("generation", 1) + (0 if same else 1)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return old
        gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers")
        held = plural in GRACEFUL and new["metadata"].get("deletionGracePeriodSeconds")
        held = held or ((group, plural) == ("", "namespaces") and (new.get("spec") or {}).get("finalizers"))
        if gone and not held:
            self._remove(group, plural, new)
            return new
        self._store(group, plural, new, "MODIFIED")
        return new

    def _delete(self, group: str, plural: str, obj: Obj, options: Obj | None) -> None:
        pre = (options or {}).get("preconditions") or {}
        if pre.get("uid", obj["metadata"]["uid"]) != obj["metadata"]["uid"]:
            raise status.conflict(group, plural, obj["metadata"]["name"], "uid precondition")
        new = copy.deepcopy(obj)
        md = new["metadata"]
        policy = (options or {}).get("propagationPolicy")
        finalizers = set(md.get("finalizers") or [])
        if policy == "Foreground":
            finalizers.add("foregroundDeletion")
        if policy == "Orphan":
            finalizers.add("orphan")
        if finalizers:
            md["finalizers"] = sorted(finalizers)
        grace = (options or {}).get("gracePeriodSeconds")
        if grace is None:
            grace = 30 if plural in GRACEFUL and obj.get("spec", {}).get("nodeName") else 0
        if (group, plural) == ("", "namespaces") and (new.get("spec") or {}).get("finalizers"):
            new.setdefault("status", {})["phase"] = "Terminating"
            finalizers.add("x")
        if not finalizers and not grace:
            self._remove(group, plural, new)
            return
        if md.get("deletionTimestamp") and md.get("deletionGracePeriodSeconds", 0) <= grace:
            return
        md["deletionTimestamp"] = rfc3339(self.clock.now())
        md["deletionGracePeriodSeconds"] = grace
        self._store(group, plural, new, "MODIFIED")

    def _watch(self, group: str, plural: str, ns: str, query: dict[str, str]) -> Answer:
        initial = "sendInitialEvents" in query
        if initial and not self.watch_list:
            raise status.invalid("meta.k8s.io", "ListOptions", "", [status.forbidden_field("sendInitialEvents", "no")])
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        if initial:
            for obj in self._select(self.objects.setdefault((group, plural), {}), ns, query):
                queue.put_nowait(frame("ADDED", obj))
            md = {"resourceVersion": str(self.version), "annotations": {"k8s.io/initial-events-end": "true"}}
            queue.put_nowait(frame("BOOKMARK", {"metadata": md}))
        entry = ((group, plural), ns, query, queue)
        self._watchers.append(entry)

        async def stream() -> AsyncIterator[bytes]:
            try:
                while (data := await queue.get()) is not None:
                    yield data
            finally:
                self._watchers.remove(entry)

        return Answer(200, stream=stream())

    # -- the store

    def _key(self, obj: Obj) -> str:
        ns = obj["metadata"].get("namespace")
        return f"{ns}/{obj['metadata']['name']}" if ns else obj["metadata"]["name"]

    def _get(self, group: str, plural: str, key: str) -> Obj:
        obj = self.objects.get((group, plural), {}).get(key)
        if obj is None:
            raise status.not_found(group, plural, key.rpartition("/")[2])
        return obj

    def _store(self, group: str, plural: str, obj: Obj, type: str) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects.setdefault((group, plural), {})[self._key(obj)] = obj
        self._tell(group, plural, type, obj)

    def _remove(self, group: str, plural: str, obj: Obj) -> None:
        self.version += 1
        self.objects[group, plural].pop(self._key(obj), None)
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._tell(group, plural, "DELETED", obj)

    def _tell(self, group: str, plural: str, type: str, obj: Obj) -> None:
        for gr, ns, query, queue in self._watchers:
            if gr == (group, plural) and (not ns or obj["metadata"].get("namespace") == ns) and selected(obj, query):
                queue.put_nowait(frame(type, obj))

    def _select(self, store: dict[str, Obj], ns: str | None, query: Mapping[str, str]) -> list[Obj]:
        return [
            o for o in list(store.values()) if (not ns or o["metadata"].get("namespace") == ns) and selected(o, query)
        ]

    def _scale(self, obj: Obj) -> Obj:
        selector = str(Selector.of(obj.get("spec", {}).get("selector")))
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": obj["metadata"],
            "spec": {"replicas": obj.get("spec", {}).get("replicas", 0)},
            "status": {"replicas": obj.get("status", {}).get("replicas", 0), "selector": selector},
        }


def ok(obj: Any, code: int = 200) -> Answer:
    return Answer(code, orjson.dumps(obj))


def frame(type: str, obj: Obj) -> bytes:
    return orjson.dumps({"type": type, "object": obj}) + b"\n"


def selected(obj: Obj, query: Mapping[str, str]) -> bool:
    text = query.get("labelSelector", "")
    if text and not Selector.parse(text).matches(obj["metadata"].get("labels") or {}):
        return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        field, op, want = re.split(r"(!=|=)", term, maxsplit=1)
        value: Any = obj
        for part in field.split("."):
            value = (value or {}).get(part)
        if ((value or "") == want) != (op == "="):
            return False
    return True


def merge(old: Any, patch: Any, *, strategic: bool = False) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    new = dict(old) if isinstance(old, dict) else {}
    for k, v in patch.items():
        if v is None:
            new.pop(k, None)
        elif strategic and isinstance(v, list) and k in MERGE_KEYS and isinstance(new.get(k), list):
            new[k] = merge_list(k, new[k], v)
        elif k.startswith("$deleteFromPrimitiveList/"):
            field = k.partition("/")[2]
            new[field] = [x for x in new.get(field) or [] if x not in v]
        elif not k.startswith("$"):
            new[k] = merge(new.get(k), v, strategic=strategic)
    return new


MERGE_KEYS = {"ownerReferences": "uid", "conditions": "type", "finalizers": "", "taints": "key"}


def merge_list(field: str, old: list[Any], patch: list[Any]) -> list[Any]:
    by = MERGE_KEYS[field]
    if not by:
        return old + [v for v in patch if v not in old]
    out = list(old)
    for item in patch:
        rest = [o for o in out if o.get(by) != item.get(by)]
        if item.get("$patch") == "delete":
            out = rest
        else:
            found = next((o for o in out if o.get(by) == item.get(by)), {})
            out = [*rest, {**found, **item}]
    return out


def json_patch(old: Obj, ops: list[Obj]) -> Obj:
    new = copy.deepcopy(old)
    for op in ops:
        *parents, last = [p.replace("~1", "/").replace("~0", "~") for p in op["path"].split("/")[1:]]
        at: Any = new
        for p in parents:
            at = at[int(p)] if isinstance(at, list) else at[p]
        if op["op"] == "test":
            if (at[int(last)] if isinstance(at, list) else at.get(last)) != op["value"]:
                raise ApiError(422, "Invalid", "test failed")
        elif op["op"] == "remove":
            del at[int(last) if isinstance(at, list) else last]
        elif isinstance(at, list):
            at.append(op["value"]) if last == "-" else at.__setitem__(int(last), op["value"])
        else:
            at[last] = op["value"]
    return new
