"""Links of pages behind the proxy."""

from __future__ import annotations

import pytest

from berg.apiserver.subresources import links

PREFIX = "/api/v1/namespaces/n/pods/p:80/proxy"


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (b'<a href="/x">t</a>', b'<a href="%s/x">t</a>'),
        (b"<img alt=a src='/x?y=1#z'/>", b"<img alt=a src='%s/x?y=1#z'/>"),
        (b"<form action=/go>", b"<form action=%s/go>"),
        (b'<a href="http://10.0.0.1:80/x/">', b'<a href="%s/x/">'),
    ],
)
def test_links_of_the_same_host_lead_through(html: bytes, expected: bytes) -> None:
    assert links.page(html, PREFIX, "10.0.0.1:80") == expected % PREFIX.encode()


@pytest.mark.parametrize(
    "html",
    [
        b'<a href="x">',
        b'<a href="https://example.com/x">',
        b'<a title="/x">',
        b'text with href="/x" in it',
        b'<a href="' + PREFIX.encode() + b'/x">',
        b'<a href="/\xff',
        b"\xff\xfe<b>",
    ],
)
def test_everything_else_stays(html: bytes) -> None:
    assert links.page(html, PREFIX, "10.0.0.1:80") == html
