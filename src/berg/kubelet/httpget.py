"""One HTTP GET to a container: what probes and lifecycle hooks do. No session, no verification, a small answer.

Source: pkg/probe/http, pkg/kubelet/lifecycle/handlers.go.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from berg.machinery.status import Obj

MAX_BODY = 10 * 1024
MAX_REDIRECTS = 10


class HTTPError(Exception):
    """No answer; `str()` says why, as upstream's failure message has it."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def port_of(port: Any, c: Obj) -> int:
    """A number, or the name of one of the container's ports. Raises HTTPError."""
    if isinstance(port, int):
        number = port
    else:
        found = next((x["containerPort"] for x in c.get("ports") or () if x.get("name") == port), None)
        if found is None and str(port).isdigit():
            found = int(port)
        if found is None:
            raise HTTPError(f"couldn't find port: {port!r} in container {c['name']}".replace("'", '"'))
        number = found
    if not 0 < number < 65536:
        raise HTTPError(f"invalid port number: {number}")
    return number


def target(action: Obj, c: Obj, pod_ip: str) -> tuple[str, list[tuple[str, str]]]:
    """(URL, headers) of an HTTPGetAction."""
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    shown = f"[{host}]" if ":" in host else host
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = "/" + path
    headers = [(h["name"], h.get("value") or "") for h in action.get("httpHeaders") or ()]
    return f"{scheme}://{shown}:{port_of(action['port'], c)}{path}", headers


async def get(url: str, headers: list[tuple[str, str]], timeout_s: float, agent: str) -> Answer:
    """Follows redirects on the same host; one that leads elsewhere is the answer. Raises HTTPError."""
    host = urlsplit(url).hostname
    try:
        async with asyncio.timeout(timeout_s):
            first = url
            for _ in range(MAX_REDIRECTS):
                answer = await _once(first, headers, agent)
                where = answer.headers.get("location")
                if not 300 <= answer.status < 400 or not where:
                    return answer
                first = urljoin(first, where)
                if urlsplit(first).hostname != host:
                    return answer
            raise HTTPError(f'Get "{first}": stopped after 10 redirects')
    except TimeoutError as e:
        raise HTTPError(
            f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        ) from e


def dial_error(e: OSError, host: str, port: int) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    words = {
        111: "connection refused",
        113: "no route to host",
        110: "connection timed out",
        101: "network is unreachable",
    }
    return f"dial tcp {where}: connect: {words.get(e.errno or 0, (e.strerror or str(e)).lower())}"


async def _once(url: str, headers: list[tuple[str, str]], agent: str) -> Answer:
    parts = urlsplit(url)
    tls: ssl.SSLContext | None = None
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    except ssl.SSLError as e:
        raise HTTPError(f'Get "{url}": {e.reason or e}') from e
    except OSError as e:
        raise HTTPError(f'Get "{url}": {dial_error(e, host, port)}') from e
    try:
        writer.write(_request(parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""), headers, agent))
        return await _read(reader)
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as e:
        raise HTTPError(f'Get "{url}": {"EOF" if isinstance(e, asyncio.IncompleteReadError) else e}') from e
    finally:
        writer.close()


def _request(netloc: str, path: str, headers: list[tuple[str, str]], agent: str) -> bytes:
    given = {name.lower() for name, _ in headers}
    lines = [f"GET {path or '/'} HTTP/1.1"]
    host = next((value for name, value in headers if name.lower() == "host"), netloc)
    lines.append(f"Host: {host}")
    if "user-agent" not in given:
        lines.append(f"User-Agent: {agent}")
    if "accept" not in given:
        lines.append("Accept: */*")
    # An empty User-Agent or Accept takes the header away.
    lines += [
        f"{name}: {value}"
        for name, value in headers
        if name.lower() != "host" and (value or name.lower() not in ("user-agent", "accept"))
    ]
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def _read(reader: asyncio.StreamReader) -> Answer:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ", 2)[1])
        if status != 100:
            break
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length")
    wanted = min(int(length), MAX_BODY) if length and length.isdigit() else MAX_BODY
    body = b""
    while len(body) < wanted:
        chunk = await reader.read(wanted - len(body))
        if not chunk:
            break
        body += chunk
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _dechunk(body)
    return Answer(status, headers, body)


def _dechunk(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        try:
            n = int(size.split(b";")[0], 16)
        except ValueError:
            break
        if n == 0:
            break
        out += rest[:n]
        data = rest[n + 2 :]
    return out
