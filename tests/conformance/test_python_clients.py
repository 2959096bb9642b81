"""Python's clients of etcd, against Berg and a real etcd: what they return must be the same."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from berg.etcd.server import Config, EtcdServer

from .conftest import Etcd, free_port, ready

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd (apt install etcd-server)")


@pytest.fixture
async def endpoints(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    from berg.storage.etcd.client import EtcdStore

    server = EtcdServer(Config(data_dir=str(tmp_path / "berg"), listen_client_urls=["http://127.0.0.1:0"]))
    await server.start()
    real = Etcd(tmp_path, "default", free_port(), free_port())
    real.start()
    store = EtcdStore([real.endpoint], compaction_interval_s=0)
    await ready(store)
    await store.close()
    yield f"http://127.0.0.1:{server.ports[0]}", real.endpoint
    real.kill()
    await server.stop()


async def both(endpoints: tuple[str, str], talk: Callable[[str, int], Awaitable[list[Any]]]) -> None:
    said = []
    for endpoint in endpoints:
        url = urlsplit(endpoint)
        assert url.hostname is not None and url.port is not None
        async with asyncio.timeout(30):
            said.append(await talk(url.hostname, url.port))
    assert said[0] == said[1] and len(said[0]) > 8


async def test_aetcd(endpoints: tuple[str, str]) -> None:
    import aetcd

    async def talk(host: str, port: int) -> list[Any]:
        said: list[Any] = []
        async with aetcd.Client(host=host, port=port) as client:
            await client.put(b"k", b"v")
            said.append((await client.get(b"k")).value)
            said.append(await client.replace(b"k", b"v", b"v2"))
            said.append(await client.replace(b"k", b"v", b"v3"))
            said.append(sorted(kv.key for kv in await client.get_all()))
            said.append(await client.delete(b"k") is not None)
            said.append(await client.delete(b"k") is not None)
            lease = await client.lease(60)
            await client.put(b"leased", b"1", lease)
            await lease.refresh()
            said.append(await lease.remaining_ttl() >= 59)
            await lease.revoke()
            said.append(await client.get(b"leased"))
            watch = await client.watch_prefix(b"w")
            await client.put(b"w1", b"1")
            async for event in watch:
                said.append((event.kind, event.kv.key, event.kv.value))
                break
            await watch.cancel()
            succeeded, responses = await client.transaction(
                compare=[client.transactions.value(b"w1") == b"1"],
                success=[client.transactions.put(b"t", b"1"), client.transactions.get(b"w1")],
                failure=[],
            )
            said.append((succeeded, responses[1][0][0]))
            async with client.lock(b"lock", ttl=60) as lock:
                said.append(await lock.is_acquired())
            try:
                await client.get(b"")
            except aetcd.InvalidArgumentError as e:
                said.append(str(e))
            said.append([member.name async for member in client.members()])
            said.append((await client.status()).leader is not None)
        return [repr(s) if not isinstance(s, tuple) else s for s in said]

    await both(endpoints, talk)


async def test_etcd3gw(endpoints: tuple[str, str]) -> None:
    import etcd3gw

    def talk_now(host: str, port: int) -> list[Any]:
        client = etcd3gw.client(host=host, port=port, api_path="/v3/")
        said: list[Any] = [
            client.put("foo", "bar"),
            client.get("foo"),
            client.replace("foo", "bar", "baz"),
            client.replace("foo", "bar", "baz"),
            client.create("foo", "x"),
            client.get_prefix("f"),
            client.delete("foo"),
            client.delete("foo"),
        ]
        lease = client.lease(ttl=60)
        said += [lease.ttl() >= 59, client.put("l", "1", lease=lease), lease.keys(), lease.refresh()]
        said += [lease.revoke(), client.get("l")]
        events, cancel = client.watch("w")
        timer = threading.Timer(0.1, lambda: client.put("w", "1"))
        timer.start()
        said.append(next(events)["kv"]["value"])
        cancel()
        timer.join()
        with client.lock("k", ttl=60) as lock:
            said.append(lock.is_acquired())
        try:
            client.get("")
        except etcd3gw.exceptions.Etcd3Exception as e:
            said.append(str(e))
        said.append(client.members()[0]["name"])
        return said

    await both(endpoints, lambda host, port: asyncio.to_thread(talk_now, host, port))
