"""CORS and HSTS."""

from __future__ import annotations

import pytest

from berg.apiserver.http.browsers import BadBrowserOption, around
from berg.apiserver.http.message import Request, Response

SITE = "https://www.example.org"


async def _hello(_: Request) -> Response:
    return Response(200, b"hello")


async def test_sites_that_may_ask() -> None:
    handler = around(_hello, origins=["//www.example.org(:|$)"], transport_security=[])
    response = await handler(Request("GET", "/", headers={"origin": SITE}))
    assert response.body == b"hello"
    assert response.headers["Access-Control-Allow-Origin"] == SITE
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Access-Control-Allow-Methods"] == "POST, GET, OPTIONS, PUT, DELETE, PATCH"
    before = await handler(Request("OPTIONS", "/", headers={"origin": SITE}))
    assert (before.status, before.body) == (204, b"")
    other = await handler(Request("OPTIONS", "/", headers={"origin": f"{SITE}.evil"}))
    assert (other.status, other.headers) == (200, {})
    assert (await handler(Request("GET", "/"))).headers == {}


async def test_only_https() -> None:
    handler = around(_hello, origins=[], transport_security=["max-age=31536000", "includeSubDomains"])
    headers = (await handler(Request("GET", "/"))).headers
    assert headers == {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}


@pytest.mark.parametrize(
    ("origins", "directives", "why"),
    [
        (["example.org"], [], "does not pin to start/end of host"),
        (["//(:"], [], "invalid regular expression"),
        ([], ["for-ever"], "invalid, allowed values: max-age=expireTime, includeSubDomains, preload: for-ever"),
    ],
)
def test_what_the_flags_may_not_say(origins: list[str], directives: list[str], why: str) -> None:
    with pytest.raises(BadBrowserOption, match=why):
        around(_hello, origins=origins, transport_security=directives)
