"""Content negotiation: which encoding, and which shape (the object, a Table, only its metadata) an answer has;
which encoding a body came in.

Source: k8s.io/apiserver pkg/endpoints/handlers/negotiation.
"""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass, replace
from functools import lru_cache

import orjson

from berg.apiserver.http.message import Request, Response
from berg.machinery import status
from berg.machinery.codec import json as json_codec
from berg.machinery.status import ApiError, Obj

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
CBOR = "application/cbor"
CBOR_SEQUENCE = "application/cbor-seq"
MEDIA_TYPES = (JSON, YAML, PROTOBUF)
CUSTOM_MEDIA_TYPES = (JSON, YAML)
"""custom resources have no protobuf form"""
STREAMED = (f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")
CBOR_OFFERED = "cbor"
"""in a request's attributes when the gate CBORServingAndStorage is on: CBOR is one more of the types above"""
GZIP_THRESHOLD_BYTES = 128 * 1024
GZIP_LEVEL = 1
IN_THREAD_BYTES = 1 << 20
_BROWSERS = ("curl", "Wget", "Mozilla/5.0")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
"""what Go reads as a boolean that is true"""


@dataclass(slots=True, frozen=True)
class Accepted:
    """`shape`: "" for the object itself, "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"."""

    media_type: str = JSON
    shape: str = ""
    version: str = "v1"
    pretty: bool = False


PLAIN = Accepted()


@lru_cache(maxsize=1024)
def parse_accept(header: str) -> tuple[tuple[str, dict[str, str]], ...]:
    """The clauses in the client's order of preference."""
    found: list[tuple[float, str, dict[str, str]]] = []
    for clause in header.split(","):
        media, *params = (p.strip() for p in clause.split(";"))
        if not media:
            continue
        given: dict[str, str] = {}
        quality = 1.0
        for param in params:
            name, _, value = param.partition("=")
            if name == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
            else:
                given[name] = value
        found.append((-quality, media, given))  # 0 is the least liked one, not a refusal
    found.sort(key=lambda f: f[0])
    return tuple((media, given) for _, media, given in found)


@lru_cache(maxsize=1024)
def _negotiate(header: str, shapes: tuple[str, ...], media_types: tuple[str, ...]) -> Accepted | None:
    if not header:
        return PLAIN
    for media, params in parse_accept(header):
        if media == "*/*" or (media == "application/*" and PROTOBUF not in media_types):
            media = media_types[0]  # routes of built-in kinds know no `application/*`
        if media not in media_types:
            continue
        shape, version = params.get("as", ""), params.get("v", "")
        known = shape in shapes and params.get("g") == "meta.k8s.io" and version in ("v1", "v1beta1")
        asked = not _SHAPING.isdisjoint(params)
        if (asked and (not known or (shape == "Table" and media in _WITHOUT_TABLES))) or params.get("sv"):
            continue
        return Accepted(media, shape, version if shape else "v1", media == JSON and params.get("pretty") == "1")
    return None


_WITHOUT_TABLES = (PROTOBUF, CBOR)
_SHAPING = frozenset(("as", "g", "v"))
OBJECT_SHAPES = ("Table", "PartialObjectMetadata")
LIST_SHAPES = ("Table", "PartialObjectMetadataList")


def negotiate(request: Request, shapes: tuple[str, ...] = (), media_types: tuple[str, ...] = MEDIA_TYPES) -> Accepted:
    """Raises NotAcceptable."""
    if CBOR_OFFERED in request.attributes:
        media_types = (*media_types, CBOR)
    accepted = _negotiate(request.headers.get("accept", ""), shapes, media_types)
    if accepted is None:
        raise _not_acceptable(request, media_types)
    if accepted.media_type == JSON and _wants_pretty(request):
        return replace(accepted, pretty=True)
    return accepted


def _not_acceptable(request: Request, media_types: tuple[str, ...]) -> ApiError:
    """Upstream's router refuses what no route of a built-in kind produces; the rest is refused by the handler."""
    offered = _offered(request)
    if PROTOBUF not in media_types:
        return status.not_acceptable(offered)
    produced = list(offered)
    if request.info.verb in ("list", "watch"):
        produced += STREAMED
        produced += [CBOR_SEQUENCE] if CBOR in offered else []
    asked = (clause.partition(";")[0].strip() for clause in request.headers.get("accept", "").split(","))
    if any(media == "*/*" or media in produced for media in asked):
        return status.not_acceptable(offered)
    return ApiError(
        406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {', '.join(produced)}", {}
    )


def _offered(request: Request) -> tuple[str, ...]:
    return (*MEDIA_TYPES, CBOR) if CBOR_OFFERED in request.attributes else MEDIA_TYPES


def _wants_pretty(request: Request) -> bool:
    if request.raw_query and (asked := request.arg("pretty")):
        return asked in _TRUE
    return request.headers.get("user-agent", "").startswith(_BROWSERS)


def encode(obj: Obj, accepted: Accepted = PLAIN) -> bytes:
    if accepted.media_type == JSON:
        if accepted.pretty:
            return orjson.dumps(obj, option=orjson.OPT_INDENT_2)
        return json_codec.dumps(obj) + b"\n"
    return encode_raw(json_codec.dumps(obj), accepted, obj)


def encode_raw(raw: bytes, accepted: Accepted, obj: Obj | None = None) -> bytes:
    """`raw` is the object's JSON; parsed only where the encoding is another one. JSON on one line ends with a newline,
    as Go's encoder ends it (a list brings its own, so that it is not copied)."""
    if accepted.media_type == JSON:
        if accepted.pretty:
            return orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2)
        return raw if raw.endswith(b"\n") else raw + b"\n"
    if obj is None:
        obj = orjson.loads(raw)
    if accepted.media_type == YAML:
        from berg.machinery.codec import yaml as yaml_codec

        return yaml_codec.dumps(obj)
    if accepted.media_type == CBOR:
        from berg.machinery.codec import cbor

        return cbor.dumps(obj)
    from berg.machinery.codec import protobuf

    return protobuf.dumps(obj)


def respond(
    request: Request,
    obj: Obj | bytes,
    accepted: Accepted = PLAIN,
    *,
    code: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """One object as an answer; compressed when it is large and the client takes that."""
    if isinstance(obj, bytes):
        body = encode_raw(obj, accepted)
    else:
        body = encode(obj, accepted)
    response = Response(code, body, accepted.media_type, headers if headers is not None else {})
    if len(body) > GZIP_THRESHOLD_BYTES:
        compress(request, response)
    return response


def compress(request: Request, response: Response) -> None:
    if len(response.body) <= GZIP_THRESHOLD_BYTES or "gzip" not in request.headers.get("accept-encoding", ""):
        return
    response.body = gzip.compress(response.body, GZIP_LEVEL, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    vary = response.headers.get("Vary")
    response.headers["Vary"] = f"{vary}, Accept-Encoding" if vary else "Accept-Encoding"


async def respond_list(request: Request, body: bytes, accepted: Accepted) -> Response:
    """A list as an answer. A long one is compressed beside the loop, which others need meanwhile."""
    if accepted.media_type != JSON or len(body) < IN_THREAD_BYTES:
        return respond(request, body, accepted)
    if accepted.pretty:
        body = encode_raw(body, accepted)
    response = Response(200, body, accepted.media_type)
    if "gzip" in request.headers.get("accept-encoding", ""):
        await asyncio.to_thread(compress, request, response)
    return response


def error_response(request: Request, error: ApiError) -> Response:
    """A client that accepts none of our encodings gets JSON, indented."""
    accepted = _negotiate(request.headers.get("accept", ""), (), _offered(request))
    if accepted is None:
        accepted = Accepted(pretty=True)
    elif accepted.media_type == JSON and _wants_pretty(request):
        accepted = replace(accepted, pretty=True)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return Response(error.code, encode(error.to_status(), accepted), accepted.media_type, headers)


def body_media_type(request: Request, allowed: tuple[str, ...] = MEDIA_TYPES) -> str:
    """Raises UnsupportedMediaType."""
    header = request.headers.get("content-type", "")
    media = header.partition(";")[0].strip().lower()
    if not media:
        return JSON
    if media not in allowed and not (media == CBOR and CBOR_OFFERED in request.attributes):
        raise status.unsupported_media_type(_offered(request))
    return media
