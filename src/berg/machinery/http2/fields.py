"""What the header fields of a request say, and which of them a request may not have.

Source: RFC 9113, section 8; for requests that name the connection, which are answered instead of reset, Go's
net/http.
"""

from __future__ import annotations

from dataclasses import dataclass

from berg.machinery.http2.hpack import Field

_OF_THE_CONNECTION = ("Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade")
CONNECTION_SPECIFIC = frozenset(n.lower() for n in _OF_THE_CONNECTION)
_PSEUDO = frozenset((":method", ":scheme", ":authority", ":path"))


class Malformed(ValueError):
    """Not a request: the stream is reset."""


@dataclass(slots=True)
class Head:
    method: str
    path: str
    """with the query"""
    headers: dict[str, str]
    fault: str
    """why it cannot be answered as it is meant; empty: it can"""


def read(fields: list[Field], lists: tuple[str, ...] = (), first_counts: frozenset[str] = frozenset()) -> Head:
    """`lists`: how the names of headers begin whose repeated values are joined by newlines, and may be UTF-8;
    `first_counts`: those of which a second one says nothing. Raises Malformed."""
    pseudo: dict[str, str] = {}
    headers: dict[str, str] = {}
    for name, value in fields:
        if not value.isascii() and name.startswith(lists):
            value = value.encode("latin-1").decode("utf-8", "replace")
        if name in headers:
            if name in first_counts:
                continue
            between = "; " if name == "cookie" else "\n" if name.startswith(lists) else ", "
            headers[name] += between + value
        elif name > ";":  # begins with a letter, nearly always
            headers[name] = value
        elif name in _PSEUDO:
            if headers or name in pseudo:
                raise Malformed
            pseudo[name] = value
        elif name[:1] in (":", "\0", ""):
            raise Malformed
        else:
            headers[name] = value
    method, path = pseudo.get(":method", ""), pseudo.get(":path", "")
    if method == "CONNECT" and pseudo.keys() <= {":method", ":authority"}:
        path = ""  # a business of proxies; here nothing is found for it
    elif not method or pseudo.get(":scheme") not in ("https", "http") or (path[:1] != "/" and path != "*"):
        raise Malformed
    authority = pseudo.get(":authority")
    if authority:
        headers["host"] = authority
    return Head(method, path, headers, _fault(headers))


def _fault(headers: dict[str, str]) -> str:
    if not CONNECTION_SPECIFIC.isdisjoint(headers):
        name = next(n for n in _OF_THE_CONNECTION if n.lower() in headers)
        return f'request header "{name}" is not valid in HTTP/2'
    if headers.get("te", "") not in ("", "trailers"):
        return 'request header "TE" may only be "trailers" in HTTP/2'
    return ""
