"""LIST: which revision is read, which part of it, and how it is written: by joining bytes that are already there.

    resourceVersion   limit, continue     what is read
    (none)            any                 the newest state
    0                 (limit ignored)     what is in memory now
    N                 none                something not older than N
    N, Exact          any                 exactly N
    N                 limit               exactly N
    (in the token)    continue            the revision that the first page had

Source: kubernetes.io/docs/reference/using-api/api-concepts, k8s.io/apiserver pkg/storage/cacher.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import orjson

from berg.apiserver.registry.decoding import go_kind
from berg.apiserver.registry.options import ListOptions
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.selection import Selection
from berg.machinery import status
from berg.machinery.codec import json as json_codec
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj
from berg.storage.cacher import Cacher, Listing, TooLargeResourceVersion
from berg.storage.interface import RevisionCompacted, RevisionFuture

_INCONSISTENT = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(slots=True)
class Page:
    listing: Listing
    metadata: Obj


async def read(registry: Registry, selection: Selection, options: ListOptions) -> Page:
    """Raises ApiError."""
    cacher = registry.cacher or await registry.open()
    limit, after, exact = options.limit, None, 0
    version, match = options.resource_version, options.resource_version_match
    token_revision = 0
    if options.continue_:
        after, token_revision = _decode_token(options.continue_)
        if version not in ("", "0"):
            raise status.bad_request("specifying resource version is not allowed when using continue")
        exact = max(token_revision, 0)
        if token_revision < 0:
            await _consistent(registry, cacher)
    elif version == "0" and match != "Exact":
        limit = 0
    elif version in ("", "0"):
        await _consistent(registry, cacher)
    elif match == "Exact" or (match == "" and limit > 0):
        exact = int(version)
    else:
        await _wait(registry, int(version))
    if exact == cacher.revision:
        exact = 0
    try:
        listing = await cacher.list(
            namespace=selection.namespace,
            index=selection.index,
            predicate=selection.predicate,
            limit=limit,
            after_key=after,
            exact_revision=exact,
        )
    except RevisionCompacted as e:
        if options.continue_:
            raise _expired_token(after or "") from None
        raise status.expired(
            f"The resourceVersion for the provided list is too old. ({exact} < {e.compact_revision})"
        ) from None
    except (RevisionFuture, TooLargeResourceVersion):
        raise too_large(exact, cacher.revision) from None
    if selection.late:
        listing = replace(listing, entries=await selection.narrow(listing.entries))
    revision = token_revision if token_revision > 0 else listing.revision
    metadata: Obj = {"resourceVersion": str(revision)}
    if listing.next_key:
        metadata["continue"] = encode_token(listing.next_key, revision)
        if listing.remaining > 0 and selection.predicate is None and not selection.late:
            metadata["remainingItemCount"] = listing.remaining
    return Page(listing, metadata)


async def _consistent(registry: Registry, cacher: Cacher) -> None:
    try:
        await cacher.consistent()
    except TooLargeResourceVersion:
        registry.consistent_reads["false", "false"] += 1
        raise
    registry.consistent_reads["false", "true"] += 1


async def _wait(registry: Registry, revision: int) -> None:
    assert registry.cacher is not None
    try:
        await registry.cacher.wait_for(revision)
    except TooLargeResourceVersion as e:
        raise too_large(revision, e.current) from None


def too_large(wanted: int, current: int) -> ApiError:
    """Source: k8s.io/apiserver pkg/storage/errors.go, NewTooLargeResourceVersionError."""
    error = status.timeout(f"Too large resource version: {wanted}, current: {current}", 1)
    error.details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
    return error


def encode_token(key: str, revision: int) -> str:
    """`key` is the last one that was given out."""
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": key + "\0"})
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def _decode_token(token: str) -> tuple[str, int]:
    head = f"invalid continue token: {_BAD_KEY}"
    fault = next((i for i, c in enumerate(token) if c not in _BASE64), None)
    if fault is not None or len(token) % 4 == 1:
        place = len(token) - 1 if fault is None else fault
        raise status.bad_request(f"{head}: illegal base64 data at input byte {place}")
    try:
        version, revision, start = _typed(json_codec.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
    except ValueError as e:
        raise status.bad_request(f"{head}: {e}") from None
    if version != "meta.k8s.io/v1":
        raise status.bad_request(f"{head}: server does not recognize this encoded version {version}")
    if not revision:
        why = "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
        raise status.bad_request(f"{head}: {why}")
    if not start:
        raise status.bad_request(f"{head}: empty encoded start key (version meta.k8s.io/v1)")
    if start.endswith("/") or any(part in ("", ".", "..") for part in start.removeprefix("/").split("/")):
        raise status.bad_request(f"{head}: {start}")
    return start.removeprefix("/").removesuffix("\0"), revision


_BAD_KEY = "continue key is not valid"
_TOKEN: tuple[tuple[str, type, str], ...] = (("v", str, "string"), ("rv", int, "int64"), ("start", str, "string"))


def _typed(token: Any) -> list[Any]:
    """Raises ValueError, in the decoder's words."""
    token = {} if token is None else token
    if not isinstance(token, dict):
        raise ValueError(f"json: cannot unmarshal {go_kind(token)} into Go value of type storage.continueToken")
    for name, kind, go in _TOKEN:
        value = token.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            shown = f"{go_kind(value)} {value}" if isinstance(value, float) else go_kind(value)
            raise ValueError(f"json: cannot unmarshal {shown} into Go struct field continueToken.{name} of type {go}")
    return [token.get(name) or kind() for name, kind, _ in _TOKEN]


def _expired_token(after: str) -> ApiError:
    return ExpiredToken(encode_token(after, -1))


class ExpiredToken(ApiError):
    """410 with a token to go on with, inconsistently."""

    def __init__(self, token: str) -> None:
        super().__init__(410, "Expired", _INCONSISTENT)
        self.token = token

    def to_status(self) -> Obj:
        body = super().to_status()
        body["metadata"] = {"continue": self.token}
        return body


async def body(registry: Registry, resource: Resource, page: Page) -> bytes:
    """The list's JSON."""
    head = orjson.dumps(
        {
            "kind": resource.list_kind or f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": {"continue": "", **page.metadata} if registry.custom else page.metadata,
        }
    )
    entries = page.listing.entries
    if registry.custom:  # custom resources keep their kind in lists
        items = b",".join(await registry.many_raw(entries, resource))
    elif registry.is_stored_as(resource):
        if entries:
            return _joined(head, resource, [e.raw for e in entries])
        items = b""
    else:
        objs = await registry.many_to_version([orjson.loads(e.raw) for e in entries], resource)
        for obj in objs:
            obj.pop("kind", None)
            obj.pop("apiVersion", None)
        items = b",".join([orjson.dumps(o) for o in objs])
    return b"".join((head[:-1], b',"items":[', items, b"]}\n"))


def _joined(head: bytes, resource: Resource, raws: list[bytes]) -> bytes:
    """The list out of its items' stored bytes, less their kind and version. Each byte of 10,000 objects is copied
    once: the items are views, and what stands before the first and behind the last goes into the one join."""
    lead = f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()
    size = len(lead)
    parts: list[bytes | memoryview] = [memoryview(r)[size if r.startswith(lead) else 1 :] for r in raws]
    parts[0] = b"".join((head[:-1], b',"items":[{', parts[0]))
    parts[-1] = b"".join((parts[-1], b"]}\n"))
    return b",{".join(parts)
