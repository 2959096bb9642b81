"""The JSON gateway: the same methods as gRPC, as `POST /v3/…` with JSON bodies.

Numbers of 64 bits are strings and bytes are base64, as protobuf's JSON mapping has it; field names are as in the
messages. A streaming method answers one JSON object per line, each under `result`.

Source: grpc-gateway's behaviour as etcd configures it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from google.protobuf import json_format

from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.storage.etcd.errors import INVALID_ARGUMENT, UNIMPLEMENTED
from berg.storage.interface import StoreError

PREFIXES = ("/v3", "/v3beta")
_KINDS = {3: "int64", 4: "uint64", 12: "bytes"}
_NUMBER = re.compile(r"-?\d+")
_SHAPES = {
    "int64": _NUMBER,
    "uint64": _NUMBER,
    "bytes": re.compile(r"(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2,3}={0,2})?"),
}
_STATUS = {1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401}


class Gateway:
    def __init__(self, methods: list[Method]) -> None:
        self._methods = {path: m for m in methods for path in m.http}

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """`path` is what comes behind the prefix."""
        method = self._methods.get(path)
        if method is None:
            return _failed(RpcError(5, "Not Found"))
        if request.method != "POST":
            return _failed(RpcError(UNIMPLEMENTED, "Method Not Allowed"))
        call = Call({"authorization": request.headers.get("Authorization", "")}, "")
        try:
            if method.unary is not None:
                answer = await method.unary(call, _parse(method, await request.read()))
                return web.Response(body=_dump(answer), content_type="application/json")
            return await self._stream(request, method, call)
        except (RpcError, StoreError) as e:
            return _failed(e)

    async def _stream(self, request: web.BaseRequest, method: Method, call: Call) -> web.StreamResponse:
        assert method.stream is not None
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        answers: Any = method.stream(call, _requests(request, method))
        try:
            async for answer in answers:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(b'{"result":' + _dump(answer) + b"}\n")
        except (RpcError, StoreError) as e:
            if not response.prepared:
                return _failed(e)
            await response.write(b'{"error":' + _error(e)[1] + b"}\n")
        except ConnectionError:
            return response  # the client has gone, and that is how it ends a watch
        finally:
            await answers.aclose()
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response


async def _requests(request: web.BaseRequest, method: Method) -> AsyncIterator[Message]:
    """The body's JSON values, each as soon as it is there."""
    decoder = json.JSONDecoder()
    text = ""
    async for chunk in request.content.iter_any():
        text += chunk.decode()
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                break  # not whole yet
            text = text[end:]
            yield _message(method, value)
    if text:
        raise RpcError(INVALID_ARGUMENT, "unexpected end of JSON input")


def _parse(method: Method, body: bytes) -> Message:
    try:
        value = json.loads(body) if body.strip() else {}
    except RecursionError:
        raise RpcError(INVALID_ARGUMENT, "proto: exceeded max recursion depth") from None
    except ValueError as e:
        whole = isinstance(e, json.JSONDecodeError) and body[e.pos :].strip()
        text = "proto: syntax error" if whole else "unexpected EOF"
        raise RpcError(INVALID_ARGUMENT, text) from None
    return _message(method, value)


def _message(method: Method, value: Any) -> Message:
    """What is not known is ignored, as etcd does; what is known must be right."""
    message = method.request()
    if not isinstance(value, dict):
        raise RpcError(INVALID_ARGUMENT, f"proto: syntax error (line 1:1): unexpected token {json.dumps(value)[:1]}")
    _check(message.DESCRIPTOR, value)
    try:
        return json_format.ParseDict(value, message, ignore_unknown_fields=True)
    except json_format.ParseError as e:
        raise RpcError(INVALID_ARGUMENT, f"proto: {e}") from None


def _check(descriptor: Any, value: dict[str, Any]) -> None:
    """Python's reader takes anything for base64, and speaks of Python."""
    for name, part in value.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is None or part is None:
            continue
        for one in part if isinstance(part, list) else [part]:
            kind = _KINDS.get(field.type, "")
            if isinstance(one, dict) and field.message_type is not None:
                _check(field.message_type, one)
            elif kind and not (_SHAPES[kind].fullmatch(one) if isinstance(one, str) else _is_number(kind, one)):
                text = f"proto: invalid value for {kind} field {name}: {json.dumps(one)}"
                raise RpcError(INVALID_ARGUMENT, text)


def _is_number(kind: str, value: Any) -> bool:
    return type(value) is int and kind != "bytes"


def _dump(answer: Message) -> bytes:
    return json.dumps(
        json_format.MessageToDict(answer, preserving_proto_field_name=True), separators=(",", ":")
    ).encode()


def _error(error: RpcError | StoreError) -> tuple[int, bytes]:
    if isinstance(error, StoreError):
        error = RpcError.of(error)
    body = {"error": error.text, "code": error.code, "message": error.text}
    return _STATUS.get(error.code, 500), json.dumps(body, separators=(",", ":")).encode()


def _failed(error: RpcError | StoreError) -> web.Response:
    status, body = _error(error)
    text = json.loads(body)["message"]
    headers = {"WWW-Authenticate": text} if status == 401 else {}
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
