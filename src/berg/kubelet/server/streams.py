"""exec, attach and port-forward: ask the runtime for a URL and join the two connections, byte for byte.

The client's request head is passed on with another path, so that whatever the two agree on (SPDY, WebSocket of
any version) is theirs alone.

Source: pkg/kubelet/server/server.go getExec, getAttach, getPortForward (proxyStream).
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from berg.kubelet.server.http import Request, Response, splice

SKIPPED = {"host", "authorization"}


async def proxy(request: Request, url: str) -> Response:
    """Joins `request`'s connection with the server behind `url`."""
    parts = urlsplit(url)
    tls: ssl.SSLContext | None = None
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE  # the runtime's own, on this machine
    host, port = parts.hostname or "127.0.0.1", parts.port or (443 if tls else 80)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    except OSError as e:
        return Response(500, f"error dialing backend: {e}".encode())
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    first, *lines = request.head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method = first.split(" ", 1)[0]
    head = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
    head += [line for line in lines if line.partition(":")[0].strip().lower() not in SKIPPED]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
    try:
        await splice((request.reader, request.writer), (reader, writer))
    finally:
        writer.close()
    return Response(hijacked=True)
