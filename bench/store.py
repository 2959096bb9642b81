"""The store's rates, beside a real etcd with the same client in the same run.

    python bench/store.py [--seconds 2] [--keys 100000] [--dir DIR]

1 KiB values. `embedded` is the engine in process, as the API server uses it; `etcd` and `berg etcd` are reached over
gRPC by Berg's own client, so that these two differ by the server alone. Everything is durable: no fsync is skipped.
"""

# ruff: noqa: ASYNC220, ASYNC221
from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

from berg.storage.cacher import open_cacher
from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    PutRequest,
    RangeRequest,
    Store,
    TxnRequest,
    Unavailable,
    WatchBatch,
    WatchRequest,
    prefix_end,
)

VALUE = os.urandom(1024)
CLIENTS = (1, 16, 256)


async def rate(clients: int, seconds: float, work: Callable[[int, int], Awaitable[object]]) -> float:
    """Operations per second of `work(client, n)`."""
    count = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal count
        n = 0
        while time.perf_counter() < end:
            await work(number, n)
            n += 1
            count += 1

    started = time.perf_counter()
    await asyncio.gather(*(client(i) for i in range(clients)))
    return count / (time.perf_counter() - started)


async def measure(name: str, store: Store, seconds: float) -> None:
    async def put(client: int, n: int) -> None:
        await store.put(PutRequest(b"/bench/put/%d/%d" % (client, n % 1000), VALUE))

    async def txn(client: int, n: int) -> None:
        key = b"/bench/txn/%d/%d" % (client, n)
        missing = Compare(key, CompareTarget.MOD, CompareResult.EQUAL, 0)
        await store.txn(TxnRequest((missing,), (PutRequest(key, VALUE),), (RangeRequest(key),)))

    async def get(client: int, n: int) -> None:
        await store.range(RangeRequest(b"/bench/put/%d/%d" % (client, n % 100)))

    for n in range(100):
        await store.put(PutRequest(b"/bench/range/%d" % n, VALUE))
    ten = RangeRequest(b"/bench/range/", prefix_end(b"/bench/range/"), limit=10)

    async def list_ten(client: int, n: int) -> None:
        await store.range(ten)

    for label, work in (("put", put), ("create txn", txn), ("get", get), ("range of 10", list_ten)):
        rates = [f"{await rate(clients, seconds, work):>9,.0f}" for clients in CLIENTS]
        print(f"  {name:<22} {label:<12} {' '.join(rates)}  /s at {CLIENTS} clients", flush=True)
    rates = [f"{await watch_rate(store, seconds, watchers):>9,.0f}" for watchers in CLIENTS]
    print(f"  {name:<22} {'watch':<12} {' '.join(rates)}  events/s to {CLIENTS} watchers", flush=True)


async def watch_rate(store: Store, seconds: float, watchers: int) -> float:
    """Events that reach all watchers of a prefix together, while 16 clients write it."""
    seen = 0
    request = WatchRequest(b"/bench/watch/", prefix_end(b"/bench/watch/"))
    watches = [store.watch(request) for _ in range(watchers)]

    async def read(watch: AsyncIterator[WatchBatch]) -> None:
        nonlocal seen
        async for batch in watch:
            seen += len(batch.events)

    async def put(client: int, n: int) -> None:
        await store.put(PutRequest(b"/bench/watch/%d" % client, VALUE))

    readers = [asyncio.create_task(read(watch)) for watch in watches]
    await asyncio.sleep(0.3)
    started = time.perf_counter()
    written = round(await rate(16, seconds, put) * seconds)
    for _ in range(200):  # what was written counts when it has arrived
        if seen >= 0.99 * written * watchers:
            break
        await asyncio.sleep(0.01)
    took = time.perf_counter() - started
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return seen / took


async def measure_cacher(folder: Path, seconds: float) -> None:
    store = EmbeddedStore(folder / "cacher.db")
    await store.start()
    pods = open_cacher(store, "/registry/pods/", namespaced=True, api_version="v1", kind="Pod")
    await pods.start()
    spec = {"containers": [{"name": f"c{i}", "image": "registry/" + "x" * 60} for i in range(12)]}

    async def create(client: int, n: int) -> None:
        metadata = {"name": f"p{n}", "namespace": f"ns{client}", "labels": {"app": f"app{n % 100}"}}
        await pods.create(f"ns{client}/p{n}", {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})

    print(f"  {'watch cache':<22} {'create':<12} {await rate(16, seconds, create):>9,.0f}  /s at 16 clients")
    some = len(pods)
    for label, index in (("list all", None), ("list label", ("label", "app=app7"))):
        started, n = time.perf_counter(), 0
        while time.perf_counter() < started + seconds / 2:
            listing = await pods.list(index=index)
            b",".join([e.raw for e in listing.entries])
            n += 1
        found = len(listing.entries)
        print(f"  {'watch cache':<22} {label:<12} {n / (seconds / 2):>9,.0f}  /s ({found:,} of {some:,} objects)")
    seen = 0

    async def follow() -> None:
        nonlocal seen
        async for batch in pods.watch(after=pods.revision, buffer=1 << 30):
            seen += len(batch)

    watchers = [asyncio.create_task(follow()) for _ in range(1000)]
    await asyncio.sleep(0)
    started = time.perf_counter()

    async def update(client: int, n: int) -> None:
        entry = pods.get(f"ns{client}/p{n % 100}")
        assert entry is not None
        await pods.update(entry.key, entry.obj, expected=entry.revision)

    await rate(16, seconds / 2, update)
    print(f"  {'watch cache':<22} {'fan-out':<12} {seen / (time.perf_counter() - started):>9,.0f}  events/s to 1,000")
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    await store.close()


async def measure_open(folder: Path, keys: int) -> None:
    """In a process of its own, so that its memory is its own."""
    path = folder / "open.db"
    store = EmbeddedStore(path)
    await store.start()
    for first in range(0, keys, 1000):
        await asyncio.gather(*(store.put(PutRequest(b"/bench/%08d" % n, VALUE)) for n in range(first, first + 1000)))
    await store.compact(store.revision)
    await store.compacted()
    await store.defragment()
    print(f"  {keys:,} keys of 1 KiB: {store.size_bytes / 1e6:,.0f} MB on disk")
    await store.close()
    code = (
        "import asyncio, sys, time; from pathlib import Path\n"
        "from berg.storage.embedded import EmbeddedStore\n"
        "async def main():\n"
        "    resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "    before = resident()\n"
        "    busy, started = time.process_time(), time.perf_counter()\n"
        "    store = EmbeddedStore(Path(sys.argv[1])); await store.start()\n"
        "    took, cpu = time.perf_counter() - started, time.process_time() - busy\n"
        "    print(f'  opened in {took:.2f} s ({cpu:.2f} s of a processor), {resident() - before:,.0f} MB in memory')\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


async def measure_size(name: str, store: Store, keys: int, folder: Path, pid: int) -> None:
    """What the keys cost the server on disk (its whole directory) and in memory."""
    before = resident_mb(pid)
    for first in range(0, keys, 100):
        puts = [PutRequest(b"/bench/size/%08d" % n, VALUE) for n in range(first, first + 100)]
        await store.txn(TxnRequest(success=tuple(puts)))
    disk = sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file()) / 1e6
    print(f"  {name:<22} {keys:,} keys of 1 KiB: {disk:,.0f} MB on disk, {resident_mb(pid) - before:,.0f} MB in memory")


async def with_server(args: list[str], endpoint: str, name: str, seconds: float, keys: int, folder: Path) -> None:
    from berg.storage.etcd.client import EtcdStore

    server = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        store = EtcdStore([endpoint], compaction_interval_s=0)
        await reached(store)
        await measure(name, store, seconds)
        await store.close()
    finally:
        server.terminate()
        server.wait()
    shutil.rmtree(folder)  # its size is measured without what the rates have left
    server = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        store = EtcdStore([endpoint], compaction_interval_s=0)
        await reached(store)
        await measure_size(name, store, keys, folder, server.pid)
        await store.close()
    finally:
        server.terminate()
        server.wait()


async def reached(store: Store) -> None:
    for _ in range(300):
        try:
            return await store.start()
        except Unavailable:
            await asyncio.sleep(0.1)
    raise SystemExit("the server does not answer")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def main(seconds: float, keys: int, folder: Path) -> None:
    print(f"the store, {os.cpu_count()} cores, in {folder}")
    store = EmbeddedStore(folder / "bench.db")
    await store.start()
    await measure("embedded", store, seconds)
    await store.close()
    await measure_cacher(folder, seconds)
    url = f"http://127.0.0.1:{free_port()}"
    if shutil.which("etcd"):
        peer = f"http://127.0.0.1:{free_port()}"
        args = ["etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url]
        peers = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        cluster = ["--initial-cluster", f"default={peer}", "--log-level", "error"]
        await with_server([*args, *peers, *cluster], url, "etcd over gRPC", seconds, keys, folder / "etcd")
    url = f"http://127.0.0.1:{free_port()}"
    berg = [sys.executable, "-m", "berg.cli.main", "etcd", "--data-dir", str(folder / "berg")]
    await with_server([*berg, "--listen-client-urls", url], url, "berg etcd over gRPC", seconds, keys, folder / "berg")
    await measure_open(folder, keys)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--dir", default="")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="berg-bench-", dir=options.dir or None))
    try:
        uvloop.run(main(options.seconds, options.keys, base))
    finally:
        shutil.rmtree(base, ignore_errors=True)
