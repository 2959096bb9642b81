from typing import Any

import pytest
from fake_api import Answer, FakeAPI

from berg.client.rest import Client, retry_on_conflict
from berg.machinery import status
from berg.machinery.clock import FakeClock
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError

CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)


@pytest.fixture
def api() -> FakeAPI:
    return FakeAPI()


async def test_what_is_created_is_read_back(api: FakeAPI):
    client = Client(api)
    made = await client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "ns"}, "data": {"k": "v"}})
    assert made["kind"] == "ConfigMap"
    assert await client.get(CONFIGMAPS, "ns", "a") == made
    patched = await client.patch(CONFIGMAPS, "ns", "a", {"data": {"k": None, "l": "w"}})
    assert patched["data"] == {"l": "w"}
    await client.delete(CONFIGMAPS, "ns", "a", uid=made["metadata"]["uid"])
    with pytest.raises(ApiError) as e:
        await client.get(CONFIGMAPS, "ns", "a")
    assert (e.value.code, e.value.reason) == (404, "NotFound")


async def test_an_answer_that_is_no_status_is_still_an_api_error():
    class Proxy:
        async def request(self, *a: Any, **kw: Any) -> Answer:
            return Answer(502, b"bad gateway")

        async def close(self) -> None: ...

    with pytest.raises(ApiError) as e:
        await Client(Proxy()).get(CONFIGMAPS, "ns", "a")
    assert (e.value.code, e.value.message) == (502, "bad gateway")


async def test_retry_after_is_honoured(api: FakeAPI):
    waits: list[float] = []

    class Clock(FakeClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    refusals = [status.too_many_requests("slow down", 3), status.too_many_requests("slow down", 1)]
    api.answer_hook = lambda *_: refusals.pop() if refusals else None
    made = await Client(api, clock=Clock()).create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "ns"}})
    assert made["metadata"]["name"] == "a"
    assert waits == [1, 3]


async def test_qps_spaces_requests(api: FakeAPI):
    waits: list[float] = []

    class Clock(FakeClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    client = Client(api, qps=10, burst=2, clock=Clock())
    for _ in range(4):
        await client.list(CONFIGMAPS)
    assert waits == pytest.approx([0.1, 0.2])


async def test_watch_lines_may_come_in_any_pieces():
    text = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n{"type":"BOOKMARK","object":{"metadata":{}}}\n'

    class Pieces:
        def __init__(self, size: int) -> None:
            self.size = size

        async def request(self, *a: Any, **kw: Any) -> Answer:
            async def stream() -> Any:
                for i in range(0, len(text), self.size):
                    yield text[i : i + self.size]

            return Answer(200, stream=stream())

        async def close(self) -> None: ...

    for size in (1, 7, 52, 53, 1000):
        assert [e.type async for e in Client(Pieces(size)).watch(CONFIGMAPS)] == ["ADDED", "BOOKMARK"]


async def test_an_error_event_is_raised():
    class Expired:
        async def request(self, *a: Any, **kw: Any) -> Answer:
            async def stream() -> Any:
                yield b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}\n'

            return Answer(200, stream=stream())

        async def close(self) -> None: ...

    with pytest.raises(ApiError) as e:
        async for _ in Client(Expired()).watch(CONFIGMAPS):
            pass
    assert e.value.code == 410


async def test_conflicts_are_retried_by_who_asks_for_it():
    tries = [status.conflict("", "configmaps", "a", "x"), status.conflict("", "configmaps", "a", "x")]

    async def change() -> str:
        if tries:
            raise tries.pop()
        return "done"

    assert await retry_on_conflict(change) == "done"
