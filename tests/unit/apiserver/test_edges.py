"""Requests at the edges (parameters, bodies, patches, apply, paths, media types) are answered as upstream answers them.

`tests/data/edges/*.json` holds sequences of requests and what kube-apiserver v1.36.2 said to each: code, content type,
warnings, and the Status or a digest of the object, its managed fields included. Times, UIDs and revisions are taken
out first. Bodies stand once in a file, steps name them by their places.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from berg.apiserver.http.message import Request, Response
from tests.unit.apiserver.served_api import ADMIN, Served

DATA = Path(__file__).parents[2] / "data" / "edges"
FILES = sorted(f.name for f in DATA.glob("*.json"))
_TAKEN_OUT = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( \+0000 UTC( m=[+\d.]+)?|Z)"), "TIME"),
    (re.compile(r"(current: |record \()\d+"), r"\1N"),
    (re.compile(r"""(?<=: ")\{\\".*\}(?=": )"""), "OBJECT"),  # in a message: its keys have no order
)


@pytest.fixture
def feature_gates() -> dict[str, bool]:
    """What the server that was asked, v1.36.2, has off by default and v1.37 on."""
    return {"AllowUnsafeMalformedObjectDeletion": False}


def bare(value: Any) -> Any:
    """Without what differs each time."""
    if isinstance(value, dict):
        found = {k: bare(v) for k, v in value.items()}
        if str(found.get("resourceVersion", "")).isdigit():
            found["resourceVersion"] = "RV"
        if "continue" in found:
            found["continue"] = "TOKEN"
        if isinstance(fields := found.get("managedFields"), list):
            found["managedFields"] = sorted(fields, key=lambda f: json.dumps(f, sort_keys=True))
        return found
    if isinstance(value, list):
        return [bare(v) for v in value]
    if isinstance(value, str):
        for pattern, instead in _TAKEN_OUT:
            value = pattern.sub(instead, value)
    return value


def told(code: int, kind: str, warnings: list[str], body: bytes) -> list[Any]:
    """The part of an answer that is compared: [code, content type, warnings, Status | digest | text]."""
    shown: Any = ""
    if "json" in kind:
        parsed = bare(orjson.loads(body))
        failed = isinstance(parsed, dict) and parsed.get("kind") == "Status" and parsed.get("status") == "Failure"
        whole = json.dumps(parsed, sort_keys=True)
        shown = (
            [parsed.get("reason"), parsed.get("message"), parsed.get("details")]
            if failed
            else hashlib.sha256(whole.encode()).hexdigest()[:12]
        )
    elif kind.startswith("text/plain"):
        shown = bare(body.decode("utf-8", "replace"))
    return [code, kind, sorted(warnings), shown]


def request_of(step: dict[str, Any]) -> Request:
    path, _, query = step["path"].partition("?")
    body = step.get("body", "").encode("utf-8", "surrogateescape")
    headers = {"content-type": step.get("type", "application/json")} if body else {}
    headers |= {k.lower(): v for k, v in step.get("headers", {}).items()}
    return Request(step["method"], path, query, headers, body, user=ADMIN)


def seen(response: Response) -> list[Any]:
    warnings = [w for w in response.headers.get("Warning", "").split("\n") if w]
    return told(response.status, response.content_type, warnings, response.body)


async def replayed(served: Served, steps: list[dict[str, Any]]) -> list[list[Any]]:
    found = []
    for step in steps:
        response = await served.server.handle(request_of(step))
        if response.stream is not None:
            await response.stream.aclose()  # type: ignore[attr-defined]
        found.append(seen(response))
    return found


async def prepare(served: Served, requests: list[dict[str, Any]]) -> None:
    await served.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "edge"}})
    await served.ask("POST", "/api/v1/namespaces/edge/serviceaccounts", {"metadata": {"name": "default"}})
    for step in requests:
        await served.server.handle(request_of(step))


@pytest.mark.parametrize("name", FILES)
async def test_as_upstream_answered(served: Served, name: str) -> None:
    data = json.loads((DATA / name).read_bytes())
    for step in (*data["before"], *(s for steps in data["sequences"] for s in steps)):
        if "body" in step:
            step["body"] = data["bodies"][step["body"]]
    await prepare(served, data["before"])
    async with asyncio.timeout(30):
        while data["ready"] and (await served.raw("GET", data["ready"])).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    differences = []
    for steps in data["sequences"]:
        for step, answer in zip(steps, await replayed(served, steps), strict=True):
            if answer != step["answer"]:
                asked = f"{step['method']} {step['path']} {step.get('body', '')[:200]}"
                differences.append(f"{asked}\n  upstream {step['answer']}\n  here     {answer}")
                break  # what follows in a sequence follows from this
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:10])


def test_there_is_something_to_compare() -> None:
    assert len(FILES) >= 5
