"""How `berg image` reaches the images of a running node: a socket that only root can open, one request a connection.

    → {"op": "import", "path": "/tmp/web.tar", "name": null}\\n
    ← {"progress": {"stage": "unpack", "item": "sha256:…", "current": 1, "total": 3}}\\n   any number
    ← {"result": […]}\\n  or  {"error": "…"}\\n

CRI can't import archives or report progress, and two processes must not write one image store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from berg.runtime.own.images.registry import Credentials
from berg.runtime.own.images.store import Image, ImageError, ImageStore, Progress

Report = Callable[[Progress], None]


def _shown(image: Image) -> dict[str, Any]:
    return {"id": image.id, "tags": image.tags, "digests": image.digests, "size": image.size}


class ImageService:
    """A component of the node process."""

    def __init__(self, path: Path, images: ImageStore) -> None:
        self._path, self._images = path, images
        self._server: asyncio.AbstractServer | None = None
        self._operations: dict[str, Callable[[dict[str, Any], Report], Awaitable[Any]]] = {
            "import": self._import,
            "pull": self._pull,
            "ls": self._list,
            "rm": self._remove,
        }

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=1 << 20)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()

        def send(message: dict[str, Any]) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        def report(progress: Progress) -> None:  # from whatever thread unpacks
            loop.call_soon_threadsafe(send, {"progress": asdict(progress)})

        try:
            request = json.loads(await reader.readline())
            send({"result": await self._operations[request["op"]](request, report)})
        except (ImageError, ValueError, KeyError, OSError) as e:
            send({"error": str(e) or type(e).__name__})
        finally:
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

    async def _import(self, request: dict[str, Any], report: Report) -> Any:
        return [_shown(i) for i in await self._images.import_archive(request["path"], request.get("name"), report)]

    async def _pull(self, request: dict[str, Any], report: Report) -> Any:
        credentials = Credentials(**request["credentials"]) if request.get("credentials") else None
        return [_shown(await self._images.pull(request["name"], credentials, report))]

    async def _list(self, request: dict[str, Any], report: Report) -> Any:
        return [_shown(i) for i in self._images.all()]

    async def _remove(self, request: dict[str, Any], report: Report) -> Any:
        if not self._images.remove(request["name"]):
            raise ImageError(f"there is no image {request['name']}")
        return []


def ask(path: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The client's side: the messages as they come. Raises OSError when no node answers."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        s.sendall(json.dumps(request).encode() + b"\n")
        with s.makefile("rb") as answers:
            for line in answers:
                yield json.loads(line)
