"""Links that lead through a proxy: what a page or a redirect behind it calls `/x` is `PREFIX/x` to the browser.

Only absolute paths of the same host are rewritten, in HTML's attributes that hold URLs and in `Location`; everything
else of a page stays byte for byte.

Source: k8s.io/apimachinery pkg/util/proxy/transport.go.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from berg.apiserver.http.message import Response

_ATTRIBUTES = (
    "action|background|cite|classid|codebase|data|formaction|href|icon|longdesc|manifest|poster|profile|src|usemap"
)
_TAG = re.compile(rb"<[a-zA-Z][^<>]*>")
_LINK = re.compile(rb"""(?i)(\s(?:%s)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""" % _ATTRIBUTES.encode())
_LARGEST = 8 << 20
"""A page beyond this is passed on as it is."""


def rewritten(url: str, prefix: str, host: str) -> str:
    """`host` is the authority that the request went to."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    foreign = parts.netloc not in ("", host)
    if foreign or not parts.path.startswith("/") or parts.path.startswith(prefix):
        return url
    return urlunsplit(("", "", prefix.rstrip("/") + parts.path, parts.query, parts.fragment))


def page(html: bytes, prefix: str, host: str) -> bytes:
    def link(match: re.Match[bytes]) -> bytes:
        before, value = match.groups()
        quote = value[:1] if value[:1] in (b'"', b"'") else b""
        url = (
            value.strip(quote).decode("utf-8", "surrogateescape") if quote else value.decode("utf-8", "surrogateescape")
        )
        return before + quote + rewritten(url, prefix, host).encode("utf-8", "surrogateescape") + quote

    return _TAG.sub(lambda tag: _LINK.sub(link, tag.group()), html)


async def through(response: Response, prefix: str, host: str) -> Response:
    """The same response with its links leading through the proxy."""
    for name in list(response.headers):
        if name.lower() == "location":
            response.headers[name] = rewritten(response.headers[name], prefix, host)
    encoded = any(name.lower() == "content-encoding" for name in response.headers)
    if encoded or not response.content_type.lower().startswith("text/html"):
        return response
    if response.stream is not None:
        head = bytearray()
        async for chunk in response.stream:
            head += chunk
            if len(head) > _LARGEST:
                response.stream = _continued(bytes(head), response.stream)
                return response
        response.stream, response.body = None, bytes(head)
    response.body = page(response.body, prefix, host)
    return response


async def _continued(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk
