"""What operators and probes ask: health, zpages, profiles, metrics, warnings; and how a server goes away."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from berg.apiserver.http.message import Request, Response, Stream
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.profiles import encode
from berg.machinery.codec import wire
from tests.unit.apiserver.served_api import Served


async def text(served: Served, path: str, **headers: str) -> str:
    response = await served.raw("GET", path, **headers)
    assert response.status == 200, response.body
    return response.body.decode()


async def test_checks_that_are_left_out(served: Served) -> None:
    told = await text(served, "/readyz?verbose&exclude=etcd&exclude=b&exclude=a")
    assert "[+]etcd excluded: ok\n" in told and "[+]etcd-readiness ok\n" in told
    assert 'warn: some health checks cannot be excluded: no matches for "a","b"\n' in told
    assert (await served.raw("GET", "/readyz/")).status == 404


async def test_the_index_lists_groups(served: Served) -> None:
    paths = orjson.loads(await text(served, "/"))["paths"]
    assert {"/api", "/api/v1", "/apis/", "/apis/apps", "/apis/apps/v1", "/readyz/ping", "/flagz"} <= set(paths)
    assert paths == sorted(paths)


async def test_statusz_and_flagz(served: Served) -> None:
    assert (await text(served, "/statusz")).startswith("apiserver statusz\nWarning: This endpoint is not meant to be")
    assert "\nevent-ttl:" in await text(served, "/flagz", accept="text/plain")
    response = await served.raw("GET", "/flagz", accept="application/json;v=v1alpha1;g=config.k8s.io;as=Flagz")
    assert response.content_type == "application/json;g=config.k8s.io;v=v1alpha1;as=Flagz"
    assert "deprecated" in response.headers["Warning"]
    shown = orjson.loads(response.body)
    assert (shown["kind"], shown["apiVersion"]) == ("Flagz", "config.k8s.io/v1alpha1")
    assert shown["flags"]["authorization-mode"] is not None
    code, refused = await served.ask("GET", "/statusz", accept="application/json")
    assert (code, refused["reason"]) == (406, "NotAcceptable")
    assert refused["message"].endswith("accepted: application/json, application/yaml, text/plain")


def fields(data: bytes) -> dict[int, list[Any]]:
    """A protobuf message's fields."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = wire.read_varint(data, at)
        value: Any
        value, at = wire.read_varint(data, at)
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        found.setdefault(tag >> 3, []).append(value)
    return found


def test_a_profile_is_one_of_pprofs() -> None:
    stack = (("inner", "a.py", 3), ("outer", "b.py", 7))
    profile = fields(encode([("samples", "count")], [(stack, (5,)), (stack[1:], (2,))]))
    strings = [s.decode() for s in profile[6]]
    assert strings[0] == "" and {"samples", "count", "inner", "outer", "a.py", "b.py"} <= set(strings)
    samples = [fields(s) for s in profile[2]]
    assert [s[2] for s in samples] == [[b"\x05"], [b"\x02"]]
    assert samples[0][1] == [b"\x01\x02"] and samples[1][1] == [b"\x02"], "both share the outer place"
    functions = {f[1][0]: strings[f[2][0]] for f in map(fields, profile[5])}
    lines = [fields(fields(p)[4][0]) for p in profile[4]]
    assert [(functions[line[1][0]], line[2][0]) for line in lines] == [("inner", 3), ("outer", 7)]


async def test_profiles_are_served(served: Served) -> None:
    assert "profile?debug=1" in await text(served, "/debug/pprof/")
    moved = await served.raw("GET", "/debug/pprof")
    assert (moved.status, moved.headers["Location"]) == (302, "/debug/pprof/")
    assert "test_profiles_are_served" in await text(served, "/debug/pprof/goroutine?debug=2")
    response = await served.raw("GET", "/debug/pprof/heap")
    assert b"inuse_space" in gzip.decompress(response.body)
    assert (await served.raw("GET", "/debug/pprof/nope")).body == b"Unknown profile\n"
    assert (await served.raw("PUT", "/debug/flags/v", b"x")).status == 400


async def test_priority_and_fairness_is_shown(served: Served) -> None:
    told = await text(served, "/debug/api_priority_and_fairness/dump_priority_levels")
    assert re.match(r"PriorityLevelName, +ActiveQueues, +IsIdle, ", told)
    assert re.search(r"^exempt, +0, +false, +false, +0, +1, +\d+, ", told, re.M), "this very request"


SAMPLE = re.compile(r'^([a-z0-9_]+)(?:\{((?:\w+="[^"]*",?)*)\})? \S+$')


async def test_metrics_are_well_formed(served: Served) -> None:
    await served.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    stream = (await served.raw("GET", f"/api/v1/namespaces?{query}")).stream
    assert stream is not None
    await anext(stream)
    lines = (await text(served, "/metrics")).splitlines()
    types: dict[str, str] = {}
    seen: set[str] = set()
    for line in lines:
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert name not in types, "a family stands together"
            types[name] = kind
        elif not line.startswith("#"):
            found = SAMPLE.match(line)
            assert found, line
            assert line.rpartition(" ")[0] not in seen, line
            seen.add(line.rpartition(" ")[0])
            base = re.sub(r"_(bucket|sum|count)$", "", found[1])
            assert found[1] in types or types[base] in ("histogram", "summary"), line
    told = "\n".join(lines)
    assert re.search(r'^apiserver_longrunning_requests\{.*resource="namespaces".*verb="WATCH".*\} 1$', told, re.M)
    assert re.search(
        r'^apiserver_admission_step_.*_count\{operation="CREATE",rejected="false",type="admit"\} 1$', told, re.M
    )
    counted = r'^apiserver_watch_list_duration_seconds_count\{.*resource="namespaces",scope="cluster".*\} 1$'
    assert re.search(counted, told, re.M)
    assert re.search(r'^apiserver_storage_objects\{resource="configmaps"\} [1-9]', told, re.M)
    assert re.search(r'^apiserver_flowcontrol_dispatched_requests_total\{flow_schema="exempt".* [1-9]', told, re.M)
    await stream.aclose()  # type: ignore[attr-defined]
    del stream
    assert "apiserver_longrunning_requests{" not in await text(served, "/metrics")


async def test_deprecated_versions_are_told_of(served: Served) -> None:
    await served.raw("GET", "/api/v1/namespaces/default/endpoints")
    wanted = 'removed_release="",resource="endpoints",subresource="",version="v1"} 1'
    assert wanted in await text(served, "/metrics")
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "deprecated": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    names = {"plural": "things", "kind": "Thing"}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await served.create(crds, {"metadata": {"name": "things.example.com"}, "spec": spec})
    await served.clock.advance(0, settle=50)
    listed = await served.raw("GET", "/apis/example.com/v1/things")
    assert listed.headers["Warning"] == '299 - "example.com/v1 Thing is deprecated"'


# ---- going away


@pytest.fixture
async def leaving() -> AsyncIterator[tuple[HTTPServer, asyncio.Event]]:
    go_on = asyncio.Event()

    async def handle(request: Request) -> Response:
        if request.path == "/watch":

            async def events() -> AsyncIterator[bytes]:
                yield b"one\n"
                await asyncio.Event().wait()

            return Response(stream=events())
        await go_on.wait()
        return Response(200, b"done", "text/plain")

    server = HTTPServer(handle, host="127.0.0.1")
    await server.start()
    yield server, go_on
    await server.stop(0)


async def test_what_is_under_way_is_finished(leaving: tuple[HTTPServer, asyncio.Event]) -> None:
    server, go_on = leaving
    readers, writers = [], []
    for path in (b"/slow", b"/watch"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        readers.append(reader)
        writers.append(writer)
    await readers[1].readuntil(b"one\n")
    stopped = asyncio.ensure_future(server.stop(30))
    await asyncio.sleep(0)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", server.port)
    assert not stopped.done()
    go_on.set()
    assert (await readers[0].read()).endswith(b"done")
    assert (await readers[1].read()).endswith(b"0\r\n\r\n"), "a watch ends as if its time were over"
    await stopped
    for writer in writers:
        writer.close()


async def test_a_session_holds_nobody_up() -> None:
    async def handle(request: Request) -> Response:
        async def session(stream: Stream) -> None:
            await stream.reader.read()

        return Response(101, headers={"Connection": "Upgrade", "Upgrade": "x"}, upgrade=session)

    server = HTTPServer(handle, host="127.0.0.1")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.wait_for(server.stop(30), 5)
    writer.close()


async def test_who_comes_late_is_sent_elsewhere(served: Served) -> None:
    served.server._stopping = True
    assert (await served.raw("GET", "/readyz")).status == 500
    assert (await served.raw("GET", "/livez")).status == 200
    refused = await served.server._refuse(Request("GET", "/api/v1/pods"))
    assert (refused.status, refused.headers["Retry-After"], refused.headers["Connection"]) == (429, "5", "close")


async def test_a_full_store_says_so_and_can_be_emptied(served: Served) -> None:
    path, store = "/api/v1/namespaces/default/configmaps", served.server.services.store
    assert (await served.raw("POST", path, b'{"metadata":{"name":"kept"}}')).status == 201
    await store.arm()
    refused = await served.raw("POST", path, b'{"metadata":{"name":"new"}}')
    status = orjson.loads(refused.body)
    assert (refused.status, status["message"]) == (500, "etcdserver: mvcc: database space exceeded")
    assert "reason" not in status
    assert (await served.raw("GET", f"{path}/kept")).status == 200
    assert (await served.raw("DELETE", f"{path}/kept")).status == 200
    await store.disarm()
    assert (await served.raw("POST", path, b'{"metadata":{"name":"new"}}')).status == 201
