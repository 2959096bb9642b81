"""What browsers want to be told: which other sites may ask (CORS), and that only HTTPS is spoken here (HSTS). Around
the whole chain, when it is configured, and not there otherwise.

Source: k8s.io/apiserver pkg/server/filters/{cors,hsts}.go, pkg/server/options/server_run_options.go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from berg.apiserver.http.message import Handler, Request, Response

_METHODS = "POST, GET, OPTIONS, PUT, DELETE, PATCH"
_HEADERS = "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, "
_MAX_AGE = re.compile(r"max-age=\d+")


class BadBrowserOption(ValueError):
    """A flag about browsers that cannot be followed."""


def around(handler: Handler, *, origins: Sequence[str], transport_security: Sequence[str]) -> Handler:
    """Raises BadBrowserOption."""
    if origins:
        handler = _cors(handler, [_pattern(o) for o in origins])
    if transport_security:
        handler = _hsts(handler, transport_security)
    return handler


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
        if not any(p in text for p in ("^", "//")) or not any(p in text for p in ("$", ":")):
            raise ValueError("regular expression does not pin to start/end of host in the origin header")
    except (re.error, ValueError) as e:
        raise BadBrowserOption(f"--cors-allowed-origins has an invalid regular expression: {e}") from None
    return pattern


def _cors(handler: Handler, allowed: Sequence[re.Pattern[str]]) -> Handler:
    async def answer(request: Request) -> Response:
        origin = request.headers.get("origin")
        if not origin or not any(p.search(origin) for p in allowed):
            return await handler(request)
        response = Response(204, content_type="") if request.method == "OPTIONS" else await handler(request)
        response.headers |= {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": f"{_HEADERS}If-Modified-Since",
            "Access-Control-Expose-Headers": "Date",
            "Access-Control-Allow-Credentials": "true",
        }
        return response

    return answer


def _hsts(handler: Handler, directives: Sequence[str]) -> Handler:
    for directive in directives:
        if directive not in ("includeSubDomains", "preload") and not _MAX_AGE.fullmatch(directive):
            told = "allowed values: max-age=expireTime, includeSubDomains, preload"
            raise BadBrowserOption(f"--strict-transport-security-directives invalid, {told}: {directive}")
    told = "; ".join(directives)

    async def answer(request: Request) -> Response:
        response = await handler(request)
        response.headers.setdefault("Strict-Transport-Security", told)
        return response

    return answer
