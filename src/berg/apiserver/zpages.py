"""`/statusz` and `/flagz`: what this server is and what it was told, for people, or as an object for who asks with
`as=Statusz` or `as=Flagz`; `/debug/flags/v`, which changes how much is logged.

Source: k8s.io/component-base zpages, KEP-4827, KEP-4828.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import orjson

from berg.apiserver.config import Config
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.negotiation import JSON, YAML, parse_accept
from berg.machinery import status, version
from berg.machinery.clock import rfc3339
from berg.machinery.status import Obj

_NAME, _GROUP = "apiserver", "config.k8s.io"
_VERSIONS = ("v1alpha1", "v1beta1")
_HIDDEN = frozenset(("clock", "store"))
_PATHS = ("/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version")
_WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is "
    "for debugging purposes only."
)
VERBOSE = 4
"""from here on, `-v` logs what is of use to who looks for a fault"""

Page = tuple[str, Obj]
"""as text, as an object"""


def answers(config: Config) -> dict[str, Callable[[Request], Response]]:
    """Path → what answers it."""
    started = time.time()
    return {
        "/statusz": partial(_answer, "Statusz", lambda: _statusz(started)),
        "/flagz": partial(_answer, "Flagz", lambda: _flagz(config)),
    }


def _statusz(started: float) -> Page:
    up, since = int(time.time() - started), datetime.fromtimestamp(started, UTC)
    running, emulated = f"python{platform.python_version()}", f"{version.MAJOR}.{version.MINOR}"
    text = (
        f"Started:  {since:%a %b %d %H:%M:%S UTC %Y}\n"
        f"Up:  {up // 3600} hr {up // 60 % 60:02d} min {up % 60:02d} sec\n"
        f"Go version:  {running}\n"
        f"Binary version:  {emulated}\n"
        f"Emulation version:  {emulated}\n"
        f"Paths:  {' '.join(_PATHS)}\n"
    )
    obj: Obj = {
        "startTime": rfc3339(since),
        "uptimeSeconds": up,
        "goVersion": running,
        "binaryVersion": emulated,
        "emulationVersion": emulated,
        "paths": list(_PATHS),
    }
    return text, obj


def _flagz(config: Config) -> Page:
    names = (f.name for f in dataclasses.fields(config) if f.name not in _HIDDEN)
    flags = dict(sorted((n.removesuffix("_s").replace("_", "-"), _flag(n, getattr(config, n))) for n in names))
    return "".join(f"{name}:{value}\n" for name, value in flags.items()), {"flags": flags}


def _flag(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ",".join(f"{k}={_flag('', v)}" for k, v in value.items())
    if isinstance(value, tuple):
        return "-".join(str(v) for v in value)
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    return f"{value:g}s" if isinstance(value, float) and name.endswith("_s") else str(value)


def _answer(kind: str, make: Callable[[], Page], request: Request) -> Response:
    text, obj = make()
    for media, given in parse_accept(request.headers.get("accept") or "*/*"):
        if media in ("text/plain", "text/*", "*/*") and not given.get("as"):
            head = f"{_NAME} {kind.lower()}\n{_WARNING}\n\n"
            return Response(200, (head + text).encode(), "text/plain; charset=utf-8")
        wanted, group, v = given.get("as"), given.get("g"), given.get("v", "")
        if media in (JSON, YAML) and (wanted, group) == (kind, _GROUP) and v in _VERSIONS:
            return _object(kind, obj, media, v)
    raise status.not_acceptable([JSON, YAML, "text/plain"])


def _object(kind: str, obj: Obj, media: str, v: str) -> Response:
    shown = {"kind": kind, "apiVersion": f"{_GROUP}/{v}", "metadata": {"name": _NAME}, **obj}
    headers: dict[str, str] = {}
    if v == _VERSIONS[0]:
        why = f"This version of the {kind.lower()} endpoint is deprecated. Please use a newer version."
        headers["Warning"] = f'299 - "{why}"'
    if media == YAML:
        from berg.machinery.codec import yaml

        body = yaml.dumps(shown)
    else:
        body = orjson.dumps(shown, option=orjson.OPT_INDENT_2)
    return Response(200, body, f"{media};g={_GROUP};v={v};as={kind}", headers)


def verbosity(request: Request) -> Response:
    """PUT a number: as `-v`."""
    headers = {"X-Content-Type-Options": "nosniff"}
    if request.method != "PUT":
        return Response(406, b"unsupported http method", "text/plain", headers)
    text = request.body.decode("utf-8", "replace")
    if not text.isascii() or not text.isdigit():
        return Response(400, f'strconv.ParseUint: parsing "{text}": invalid syntax\n'.encode(), "text/plain", headers)
    logging.getLogger().setLevel(logging.DEBUG if int(text) >= VERBOSE else logging.INFO)
    return Response(200, f"successfully set klog.logging.verbosity to {text}".encode(), "text/plain", headers)
