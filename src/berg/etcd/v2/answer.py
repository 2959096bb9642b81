"""Answers of the v2 API, byte for byte as Go's encoder writes them."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

_ESCAPED = {b"&": b"\\u0026", b"<": b"\\u003c", b">": b"\\u003e"}
"""none of these stands outside a string in JSON"""


def encode(value: Any) -> bytes:
    data = orjson.dumps(value)
    for plain, escaped in _ESCAPED.items():
        data = data.replace(plain, escaped)
    return data


def json_answer(
    value: Any, status: int = 200, headers: dict[str, str] | None = None, *, newline: bool = True
) -> web.Response:
    body = encode(value) + b"\n" * newline
    return web.Response(status=status, body=body, content_type="application/json", headers=headers or {})


def message(text: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    """A failure of anything but keys."""
    return json_answer({"message": text}, status, headers, newline=False)


def not_allowed(methods: str) -> web.Response:
    return web.Response(status=405, headers={"Allow": methods}, text="Method Not Allowed\n")
