"""The REST client: verbs on resources, over a `Transport`. Every failure is an `ApiError`.

What the server asks for with Retry-After (429, 5xx) is honoured here, as client-go does, at most ten times;
every other retry is the caller's decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from berg.client.transport import Transport, TransportResponse
from berg.machinery.clock import Clock, RealClock
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj

T = TypeVar("T")

PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
METADATA_ONLY = {
    "object": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
    "list": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
}
MAX_RETRIES = 10
JSONList = list[Any]
Chunks = list[bytes]
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(slots=True, frozen=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised as the ApiError it carries."""

    type: str
    object: Obj


WatchBatch = list[WatchEvent]


class TokenBucket:
    """At most `burst` at once, then `qps` a second; `wait` takes its turn in the order of the calls."""

    def __init__(self, qps: float, burst: int, clock: Clock) -> None:
        self._qps, self._burst, self._clock = qps, max(burst, 1), clock
        self._tokens = float(self._burst)
        self._at = clock.monotonic()

    async def wait(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps)
        self._at = now
        self._tokens -= 1  # a debt makes those who come after wait longer
        if self._tokens < 0:
            await self._clock.sleep(-self._tokens / self._qps)


class Client:
    """`qps` 0 means unlimited."""

    def __init__(
        self,
        transport: Transport,
        *,
        user_agent: str = "berg",
        qps: float = 0,
        burst: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.transport = transport
        self.user_agent = user_agent
        self.clock: Clock = clock or RealClock()
        self._bucket = TokenBucket(qps, burst or int(qps * 2), self.clock) if qps > 0 else None

    @classmethod
    def from_kubeconfig(cls, path: str, context: str | None = None, **kw: Any) -> Client:
        from berg.client.kubeconfig import Kubeconfig

        return cls(Kubeconfig.load(path).endpoint(context).transport(), **kw)

    async def close(self) -> None:
        await self.transport.close()

    # -- raw requests

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> TransportResponse:
        """The answer with its body still to be read; raises ApiError for every status from 400."""
        send = {"Accept": "application/json", "User-Agent": self.user_agent, **(headers or {})}
        for attempt in range(MAX_RETRIES + 1):
            if self._bucket is not None:
                await self._bucket.wait()
            answer = await self.transport.request(method, path, query=query, headers=send, body=body)
            if answer.status < 400:
                return answer
            data = await answer.read()
            error = _error(answer.status, answer.headers, data)
            if attempt < MAX_RETRIES and (wait_s := _retry_after(answer)) is not None:
                await self.clock.sleep(wait_s)
                continue
            raise error
        raise AssertionError("unreachable")

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Obj | JSONList | bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """The answer's body. `body` is encoded as JSON unless it is bytes."""
        send = dict(headers or {})
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        if data is not None:
            send.setdefault("Content-Type", content_type)
        answer = await self.send(method, path, query=query, headers=send, body=data)
        return await answer.read()

    async def _object(self, method: str, path: str, query: Mapping[str, str] | None = None, **kw: Any) -> Obj:
        data = await self.request(method, path, query=query, **kw)
        return orjson.loads(data) if data else {}

    # -- verbs

    async def get(
        self,
        r: Resource,
        namespace: str | None,
        name: str,
        *,
        subresource: str = "",
        resource_version: str = "",
        metadata_only: bool = False,
    ) -> Obj:
        query = {"resourceVersion": resource_version} if resource_version else None
        headers = {"Accept": METADATA_ONLY["object"]} if metadata_only else None
        return await self._object("GET", r.path(namespace, name, subresource or None), query, headers=headers)

    async def list(
        self,
        r: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
        metadata_only: bool = False,
    ) -> Obj:
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else "",
            **{"continue": continue_},
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
        )
        headers = {"Accept": METADATA_ONLY["list"]} if metadata_only else None
        return await self._object("GET", r.path(namespace), query, headers=headers)

    async def watch(
        self,
        r: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        send_initial_events: bool = False,
        timeout_s: int | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Ends when the server ends it. An ERROR event is raised. Bookmarks are asked for and given out."""
        async with aclosing(
            self.watch_batches(
                r,
                namespace,
                resource_version=resource_version,
                label_selector=label_selector,
                field_selector=field_selector,
                send_initial_events=send_initial_events,
                timeout_s=timeout_s,
                metadata_only=metadata_only,
            )
        ) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def watch_batches(
        self,
        r: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        send_initial_events: bool = False,
        timeout_s: int | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[WatchBatch, None]:
        """As `watch`, all that one read brought at a time: an informer's hot path."""
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            sendInitialEvents="true" if send_initial_events else "",
            resourceVersionMatch="NotOlderThan" if send_initial_events else "",
            timeoutSeconds=str(timeout_s) if timeout_s is not None else "",
        )
        headers = {"Accept": METADATA_ONLY["object"]} if metadata_only else None
        answer = await self.send("GET", r.path(namespace), query=query, headers=headers)
        rest: Chunks = []
        chunks = answer.chunks()
        try:
            async for chunk in chunks:
                *lines, tail = chunk.split(b"\n")
                if lines and rest:
                    rest.append(lines[0])
                    lines[0] = b"".join(rest)
                    rest.clear()
                if tail:
                    rest.append(tail)
                batch: WatchBatch = []
                for line in lines:
                    if line and not line.isspace():
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            if batch:
                                yield batch
                            raise ApiError.from_status(event["object"])
                        batch.append(WatchEvent(event["type"], event["object"]))
                if batch:
                    yield batch
        finally:
            if (aclose := getattr(chunks, "aclose", None)) is not None:
                await aclose()
            answer.close()

    async def create(
        self,
        r: Resource,
        obj: Obj,
        namespace: str | None = None,
        *,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> Obj:
        """`namespace` is the object's own unless given; `name` only for a subresource."""
        ns = namespace or obj.get("metadata", {}).get("namespace")
        query = _query(dryRun="All" if dry_run else "", fieldManager=field_manager)
        return await self._object(
            "POST", r.path(ns, name or None, subresource or None), query, body=_typed(r, obj, subresource)
        )

    async def update(self, r: Resource, obj: Obj, *, subresource: str = "", dry_run: bool = False) -> Obj:
        meta = obj["metadata"]
        path = r.path(meta.get("namespace"), meta["name"], subresource or None)
        return await self._object(
            "PUT", path, _query(dryRun="All" if dry_run else ""), body=_typed(r, obj, subresource)
        )

    async def update_status(self, r: Resource, obj: Obj) -> Obj:
        return await self.update(r, obj, subresource="status")

    async def patch(
        self,
        r: Resource,
        namespace: str | None,
        name: str,
        patch: Obj | JSONList,
        *,
        type: str = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        """`type` is json, merge, strategic or apply."""
        query = _query(fieldManager=field_manager, force="true" if force else "", dryRun="All" if dry_run else "")
        path = r.path(namespace, name, subresource or None)
        return await self._object("PATCH", path, query, body=patch, content_type=PATCH_TYPES[type])

    async def delete(
        self,
        r: Resource,
        namespace: str | None,
        name: str,
        *,
        propagation_policy: str = "",
        grace_period_s: int | None = None,
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        options = _delete_options(propagation_policy, grace_period_s, uid, resource_version)
        await self.request("DELETE", r.path(namespace, name), body=options)

    async def delete_collection(
        self,
        r: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        propagation_policy: str = "",
        grace_period_s: int | None = None,
    ) -> None:
        query = _query(labelSelector=label_selector, fieldSelector=field_selector)
        options = _delete_options(propagation_policy, grace_period_s, "", "")
        await self.request("DELETE", r.path(namespace), query=query, body=options)

    async def evict(self, namespace: str, name: str, *, grace_period_s: int | None = None, uid: str = "") -> None:
        """Asks for a pod's eviction, which disruption budgets may refuse with 429."""
        body: Obj = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": namespace, "name": name},
        }
        if grace_period_s is not None or uid:
            body["deleteOptions"] = _delete_options("", grace_period_s, uid, "")
        await self.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body=body)


def _query(**values: str) -> dict[str, str]:
    return {k: v for k, v in values.items() if v}


def _typed(r: Resource, obj: Obj, subresource: str = "") -> Obj:
    """`obj` with the `kind` and `apiVersion` that the server insists on; the caller's dict is not changed."""
    if "kind" in obj and "apiVersion" in obj:
        return obj
    sub = r.subresources.get(subresource) if subresource else None
    if sub is not None and sub.kind and sub.kind != r.kind:
        api_version = f"{sub.group}/{sub.version}" if sub.group else sub.version
        return {"apiVersion": api_version, "kind": sub.kind, **obj}
    return {"apiVersion": r.api_version, "kind": r.kind, **obj}


def _delete_options(policy: str, grace_period_s: int | None, uid: str, resource_version: str) -> Obj:
    options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if policy:
        options["propagationPolicy"] = policy
    if grace_period_s is not None:
        options["gracePeriodSeconds"] = grace_period_s
    if uid or resource_version:
        options["preconditions"] = _query(uid=uid, resourceVersion=resource_version)
    return options


def _retry_after(answer: TransportResponse) -> float | None:
    if answer.status != 429 and answer.status < 500:
        return None
    try:
        return max(0.0, float(answer.headers.get("Retry-After") or ""))
    except ValueError:
        return None


def _error(code: int, headers: Mapping[str, str], data: bytes) -> ApiError:
    try:
        status = orjson.loads(data)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        error = ApiError.from_status(status)
        if not error.code:
            error.code = code
        return error
    text = data.decode(errors="replace").strip() or "the server answered without a message"
    if code == 404:  # no API there at all; client-go's words
        text = "the server could not find the requested resource"
    return ApiError(code, REASONS.get(code, ""), text)


async def retry_on_conflict(change: Callable[[], Awaitable[T]], *, attempts: int = 5, clock: Clock | None = None) -> T:
    """Calls `await change()` again while it is answered with Conflict. Source: client-go util/retry."""
    for attempt in range(attempts):
        try:
            return await change()
        except ApiError as e:
            if e.reason != "Conflict" or attempt == attempts - 1:
                raise
        await (clock.sleep(0.01) if clock else asyncio.sleep(0.01))
    raise AssertionError("unreachable")
