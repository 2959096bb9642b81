"""A container's log, as the kubelet has it.

Source: kubernetes pkg/registry/core/pod/rest/log.go, strategy.go (LogLocation).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

from berg.apiserver.http.forward import Unreachable, forward
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.registry import Registry
from berg.apiserver.requestinfo import RequestInfo, is_true
from berg.apiserver.subresources import kubelet
from berg.apiserver.subresources.containers import choose
from berg.machinery import status
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, FieldError, Obj
from berg.machinery.streaming.handshake import Handshake, handshake_for_reader, is_websocket

_TEXT = "text/plain"


async def handle(request: Request, registry: Registry, resource: Resource) -> Response:
    info: RequestInfo = request.info
    if info.verb != "get":
        raise status.method_not_supported("", "pods/log", info.verb)
    query = _query(request, registry.services.features.enabled("PodLogsQuerySplitStreams"))
    handshake = handshake_for_reader(request.method, request.headers) if is_websocket(request.headers) else None
    pod = (await registry.entry(info.namespace, info.name)).obj
    container = choose(pod, request.arg("container"))
    node = pod["spec"].get("nodeName")
    if not node:
        return _answer(Response(200, b"", _TEXT), handshake)
    path = f"/containerLogs/{info.namespace}/{info.name}/{container}"
    target = kubelet.target(registry.services, node, path, urlencode(query))
    onward = Request("GET", request.path, headers={}, user=request.user)
    try:
        response = await forward(onward, target)
    except Unreachable as e:
        why = f'Get "https://{target.authority}{path}": {e}'
        raise status.internal_error(why) from None
    if response.status >= 300:
        raise _fault(response.status, await _text(response))
    return _answer(Response(200, response.body, _TEXT, stream=response.stream), handshake)


def _answer(log: Response, handshake: Handshake | None) -> Response:
    """The log as it is, or over the WebSocket that was asked for."""
    if handshake is None:
        return log
    from berg.machinery.streaming.reader import serve_chunks

    chunks = log.stream or _once(log.body)
    return Response(
        101, headers=handshake.headers, upgrade=lambda stream: serve_chunks(stream, handshake, chunks, ping=True)
    )


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


async def _text(response: Response) -> str:
    body = response.body
    if response.stream is not None:
        async for chunk in response.stream:
            body += chunk
            if len(body) > 10_000:
                break
    return body.decode("utf-8", "replace").strip()


def _fault(code: int, text: str) -> ApiError:
    if code == 400:
        return status.bad_request(text)
    if code == 404:
        why = f"the server could not find the requested resource: {text}" if text else "not found"
        return ApiError(404, "NotFound", why)
    return status.internal_error(text)


def _query(request: Request, split: bool) -> list[tuple[str, str]]:
    """The options, checked; `split`: one of the two streams may be asked for.
    Source: kubernetes pkg/apis/core/validation, ValidatePodLogOptions."""
    given: Obj = {k: v[0] for k, v in request.query.items()}
    errors: list[FieldError] = []
    query: list[tuple[str, str]] = []
    for name, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        text = given.get(name)
        if not text:
            continue
        try:
            number = int(text)
        except ValueError:
            raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
        if number < least:
            errors.append(
                status.invalid_value(name, number, f"must be greater than {'or equal to 0' if not least else '0'}")
            )
        query.append((name, str(number)))
    if given.get("sinceTime"):
        if given.get("sinceSeconds"):
            errors.append(status.forbidden_field("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
        query.append(("sinceTime", given["sinceTime"]))
    stream = given.get("stream") or "All"
    if "stream" in given and not split:
        errors.append(status.forbidden_field("stream", "may not be specified"))
    elif stream not in ("All", "Stdout", "Stderr"):
        errors.append(status.not_supported("stream", stream, ["All", "Stderr", "Stdout"]))
    if split and stream != "All":
        if given.get("tailLines"):
            why = "`tailLines` and specific `stream` are mutually exclusive for now"
            errors.append(status.forbidden_field("", why))
        query.append(("stream", stream))
    if errors:
        raise status.invalid("", "PodLogOptions", request.info.name, errors)
    for name in ("follow", "previous", "timestamps"):
        if name in request.query and is_true(request.query[name]):
            query.append((name, "true"))
    return query
