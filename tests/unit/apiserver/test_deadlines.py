"""`--request-timeout`: a request that takes longer is answered with 504; a stream, or one in time, is left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from berg.apiserver.deadlines import Deadlines
from tests.unit.apiserver.served_api import Served

LATE = (
    b'{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout",'
    b'"reason":"Timeout","details":{},"code":504}\n'
)


async def never(request: Any) -> Any:
    await asyncio.Event().wait()


async def test_too_late(served: Served) -> None:
    served.server.chain.deadlines.seconds = 0.01
    served.server.paths.answers["/slow"] = never
    async with asyncio.timeout(30):
        told = await served.raw("GET", "/slow")
    assert (told.status, told.content_type, told.body) == (504, "text/plain; charset=utf-8", LATE)
    assert "Audit-Id" in told.headers
    assert (await served.raw("GET", "/version")).status == 200


async def test_one_after_the_other(served: Served) -> None:
    served.server.chain.deadlines.seconds = 0.01
    served.server.paths.answers["/slow"] = never
    async with asyncio.timeout(30):
        told = await asyncio.gather(*(served.raw("GET", "/slow") for _ in range(20)))
    assert {t.status for t in told} == {504}
    assert not served.server.chain.deadlines._running


async def test_who_is_cancelled_otherwise_is_not_answered(served: Served) -> None:
    served.server.paths.answers["/slow"] = never
    task = asyncio.create_task(served.raw("GET", "/slow"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_watch_has_none(served: Served) -> None:
    served.server.chain.deadlines.seconds = 0.001
    response = await served.raw("GET", "/api/v1/namespaces/default/configmaps?watch=1")
    assert response.stream is not None
    assert not served.server.chain.deadlines._running
    await response.stream.aclose()  # type: ignore[attr-defined]


async def test_none_at_all() -> None:
    assert Deadlines(0).begin() is None
