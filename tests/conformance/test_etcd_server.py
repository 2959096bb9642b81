"""`berg etcd` and real clients: snapshots both ways, watches, locks, TLS, the JSON gateway, the v2 API."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from berg.etcd.server import Config, EtcdServer
from berg.etcd.snapshot import BadSnapshot, restore_to
from berg.storage.embedded import EmbeddedStore
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.client import EtcdStore
from berg.storage.interface import (
    DeleteRequest,
    PutRequest,
    RangeRequest,
    RevisionFuture,
    TxnRequest,
    Unavailable,
)

from .certificates import CA
from .conftest import Etcd, free_port, ready

needs_etcdctl = pytest.mark.skipif(shutil.which("etcdctl") is None, reason="needs etcdctl (apt install etcd-client)")
needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd (apt install etcd-server)")


async def started(folder: Path, **kw: Any) -> EtcdServer:
    kw.setdefault("listen_client_urls", ["http://127.0.0.1:0"])
    server = EtcdServer(Config(data_dir=str(folder), **kw))
    await server.start()
    return server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    server = await started(tmp_path / "berg")
    yield server
    await server.stop()


def url(server: EtcdServer) -> str:
    return server.member.client_urls[0]


async def etcdctl(endpoint: str, *args: str, api: str = "3", stdin: str = "") -> str:
    environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": api}
    process = await asyncio.create_subprocess_exec(
        *("etcdctl", "--endpoints", endpoint, *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    async with asyncio.timeout(20):
        out, _ = await process.communicate(stdin.encode())
    assert process.returncode == 0, out.decode()
    return out.decode()


# -- snapshots


async def fill(store: EmbeddedStore) -> None:
    """Enough for several levels of pages, values over a page, deletions, history, a lease, compaction."""
    lease = await store.lease_grant(1000)
    for n in range(1500):
        await store.put(PutRequest(b"/registry/k%05d" % (n * 7919 % 1500), b"x" * (n % 300)))
    await store.put(PutRequest(b"large", os.urandom(300_000)))
    await store.put(PutRequest(b"leased", b"1", lease.id))
    for n in range(0, 100, 3):
        await store.delete(DeleteRequest(b"/registry/k%05d" % n))
    await store.compact(store.revision - 20)
    await store.put(PutRequest(b"/registry/k00000", b"again"))
    await store.delete(DeleteRequest(b"/registry/k01000", b"/registry/k01010"))
    for value in (b"", b"back"):  # a key that is deleted and put in one revision
        await store.txn(TxnRequest(success=(DeleteRequest(b"zz", b"\0"), PutRequest(b"zz", value))))


@needs_etcdctl
@needs_etcd
async def test_a_real_etcd_starts_on_our_snapshot(server: EtcdServer, tmp_path: Path) -> None:
    await fill(server.store)
    await etcdctl(url(server), "user", "add", "root:secret")
    await etcdctl(url(server), "user", "grant-role", "root", "root")
    saved = tmp_path / "saved.db"
    await etcdctl(url(server), "snapshot", "save", str(saved))
    status = json.loads(await etcdctl(url(server), "snapshot", "status", str(saved), "-w", "json"))
    assert status["revision"] == server.store.revision
    client, peer = free_port(), free_port()
    cluster = ("--name", "m0", "--initial-cluster", f"m0=http://127.0.0.1:{peer}")
    peers = ("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}")
    await etcdctl("-", "snapshot", "restore", str(saved), "--data-dir", str(tmp_path / "m0"), *cluster, *peers)
    real = Etcd(tmp_path, "m0", client, peer)
    real.start()
    try:
        store = EtcdStore([real.endpoint], compaction_interval_s=0)
        await ready(store)
        everything = RangeRequest(b"\0", b"\0")
        ours, theirs = await server.store.range(everything), await store.range(everything)
        assert list(ours.kvs) == list(theirs.kvs)
        assert theirs.revision == server.store.revision
        past = RangeRequest(b"\0", b"\0", revision=server.store.revision - 5)
        assert list((await server.store.range(past)).kvs) == list((await store.range(past)).kvs)
        assert await store.leases() == await server.store.leases()
        berg = EtcdStore([url(server)], compaction_interval_s=0)
        await berg.start()
        assert await store.hash() == await berg.hash()
        await berg.close()
        # and back: what the real etcd saves is a store of ours
        back = tmp_path / "back.db"
        await store.put(PutRequest(b"from-etcd", b"1"))
        await etcdctl(real.endpoint, "snapshot", "save", str(back))
        want = await store.range(everything)
        await store.close()
        await etcdctl(real.endpoint, "auth", "enable")  # the password has come along
        assert await etcdctl(real.endpoint, "--user", "root:secret", "get", "from-etcd") == "from-etcd\n1\n"
    finally:
        real.kill()
    keys, revision = restore_to(back, tmp_path / "restored" / "store.db")
    assert (keys, revision) == (want.count, want.revision)
    restored = EmbeddedStore(tmp_path / "restored" / "store.db")
    await restored.start()
    assert list((await restored.range(everything)).kvs) == list(want.kvs)
    assert await restored.leases() == await server.store.leases()
    await restored.close()


@needs_etcd
async def test_the_history_has_the_hash_that_etcd_gives_it(server: EtcdServer, tmp_path: Path) -> None:
    real = Etcd(tmp_path, "m0", free_port(), free_port())
    real.start()
    stores = [EtcdStore([endpoint], compaction_interval_s=0) for endpoint in (url(server), real.endpoint)]
    try:
        for store in stores:
            await ready(store)
        chance = random.Random(20261122)
        for step in range(300):
            key, do = b"abcdef"[(at := chance.randrange(6)) : at + 1], chance.random()
            last = bytes([key[0] + 2])
            for store in stores:
                if do < 0.7:
                    await store.put(PutRequest(key, b"%d" % step))
                elif do < 0.9:
                    await store.delete(DeleteRequest(key, last if do > 0.85 else None))
                elif store.revision > (back := store.revision - 7) > store.compact_revision:
                    await store.compact(back)
            if step % 10 == 9:
                assert await stores[0].hash() == await stores[1].hash(), step
    finally:
        for store in stores:
            await store.close()
        real.kill()


@needs_etcdctl
async def test_damaged_snapshots_are_refused(server: EtcdServer, tmp_path: Path) -> None:
    await fill(server.store)
    saved = tmp_path / "saved.db"
    await etcdctl(url(server), "snapshot", "save", str(saved))
    data = saved.read_bytes()
    broken = tmp_path / "broken.db"
    for damage, text in (
        (data[:5000] + b"!" + data[5001:], "hash is wrong"),
        (data[:-100], "no hash"),
        (b"", "no hash"),
        (b"x" * 4096, "no hash"),
    ):
        broken.write_bytes(damage)
        with pytest.raises(BadSnapshot, match=text):
            restore_to(broken, tmp_path / "never" / "store.db")
    for damage in (b"", b"x" * 9000, data[:8000], data[:16384]):
        broken.write_bytes(damage)
        with pytest.raises(BadSnapshot):
            restore_to(broken, tmp_path / "never" / "store.db", check_hash=False)
    assert not (tmp_path / "never" / "store.db").exists()


# -- what etcdctl does beyond one answer


@needs_etcdctl
async def test_watch(server: EtcdServer) -> None:
    await etcdctl(url(server), "put", "a", "1")
    process = await asyncio.create_subprocess_exec(
        *("etcdctl", "--endpoints", url(server), "watch", "--prefix", "a", "--rev", "2", "--prev-kv"),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
    )
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert [await process.stdout.readline() for _ in range(3)] == [b"PUT\n", b"a\n", b"1\n"]
        await server.store.put(PutRequest(b"ab", b"2"))
        assert [await process.stdout.readline() for _ in range(3)] == [b"PUT\n", b"ab\n", b"2\n"]
        await server.store.delete(DeleteRequest(b"a"))
        lines = [await process.stdout.readline() for _ in range(5)]
        assert lines[0] == b"DELETE\n" and b"1\n" in lines
    process.kill()
    await process.wait()


@needs_etcdctl
async def test_locks_and_elections(server: EtcdServer) -> None:
    out = await etcdctl(url(server), "lock", "job", "echo", "inside")
    assert "inside" in out
    both = await asyncio.gather(*(etcdctl(url(server), "lock", "job", "sleep", "0.2") for _ in range(2)))
    assert len(both) == 2
    assert not server.store.index.current  # nobody left a key behind
    elected = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *("etcdctl", "--endpoints", url(server), "elect", "boss", "me"),
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
        )
    )
    process = await elected
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert (await process.stdout.readline()).startswith(b"boss/")
        assert await process.stdout.readline() == b"me\n"
    process.terminate()
    await process.wait()


# -- JSON and v2 over HTTP


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


async def post(session: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, Any]:
    async with session.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def test_the_json_gateway(server: EtcdServer) -> None:
    async with aiohttp.ClientSession(url(server)) as session:
        status, put = await post(session, "/v3/kv/put", {"key": b64("a"), "value": b64("1")})
        assert status == 200 and put["header"]["revision"] == "2"
        _, got = await post(session, "/v3/kv/range", {"key": b64("a")})
        assert got["kvs"] == [
            {"key": b64("a"), "create_revision": "2", "mod_revision": "2", "version": "1", "value": b64("1")}
        ]
        success = [{"request_put": {"key": b64("b"), "value": b64("2")}}]
        compare = [{"key": b64("a"), "target": "VALUE", "value": b64("1")}]
        _, txn = await post(session, "/v3/kv/txn", {"compare": compare, "success": success})
        assert txn["succeeded"] is True
        for path, body, want, text in (
            ("/v3/kv/range", {"key": b64("a"), "revision": 99}, 400, "future revision"),
            ("/v3/kv/range", {}, 400, "key is not provided"),
            ("/v3/kv/range", {"nonsense": 1}, 400, "key is not provided"),
            ("/v3/kv/put", {"key": "!!"}, 400, 'invalid value for bytes field key: "!!"'),
            ("/v3/kv/put", {"key": 1}, 400, "invalid value for bytes field key: 1"),
            ("/v3/kv/txn", {"success": [{"request_put": {"key": "?"}}]}, 400, 'bytes field key: "?"'),
            ("/v3/kv/put", {"key": b64("a"), "lease": "x"}, 400, 'invalid value for int64 field lease: "x"'),
            ("/v3/kv/put", [], 400, "unexpected token ["),
            ("/v3/lock/lock", {"name": b64("l"), "lease": "1"}, 500, "requested lease not found"),
            ("/v3/lease/revoke", {"ID": 4711}, 404, "lease not found"),
            ("/v3/none", {}, 404, "Not Found"),
        ):
            status, failed = await post(session, path, body)
            assert status == want and text in failed["error"], path
        async with session.post("/v3/kv/range", data=b"{broken") as answer:
            assert answer.status == 400
        create = json.dumps({"create_request": {"key": b64("a"), "start_revision": "2"}})
        async with session.post("/v3/watch", data=create) as answer, asyncio.timeout(10):
            first = json.loads(await answer.content.readline())
            assert first["result"]["created"] is True
            second = json.loads(await answer.content.readline())
            assert second["result"]["events"][0]["kv"]["value"] == b64("1")


async def test_a_client_that_goes_away_leaves_nothing_behind(server: EtcdServer) -> None:
    async def gone(method: str, path: str, body: Any = None) -> None:
        async with aiohttp.ClientSession(url(server)) as session:

            async def ask() -> None:
                async with session.request(method, path, json=body) as answer:
                    await answer.read()

            waiting = asyncio.create_task(ask())
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async with aiohttp.ClientSession(url(server)) as session:
        _, held = await post(session, "/v3/lock/lock", {"name": b64("l")})
        await gone("POST", "/v3/lock/lock", {"name": b64("l")})
        await gone("POST", "/v3/watch", {"create_request": {"key": b64("a")}})
        await gone("GET", "/v2/keys/a?wait=true")
        for _ in range(200):
            if len(server.store.index.current) == 1 and not server.store.watches.all():
                break
            await asyncio.sleep(0.01)
        async with session.get("/v2/stats/store") as answer:
            assert (await answer.json())["watchers"] == 0
        assert not server.store.watches.all()
        await post(session, "/v3/lock/unlock", {"key": held["key"]})
        assert not server.store.index.current


async def test_health_version_and_metrics(server: EtcdServer) -> None:
    async with aiohttp.ClientSession(url(server)) as session:
        async with session.get("/health") as answer:
            assert (answer.status, await answer.text()) == (200, '{"health":"true","reason":""}')
        async with session.get("/version") as answer:
            assert "etcdserver" in await answer.json()
        async with session.get("/metrics") as answer:
            text = await answer.text()
            assert "etcd_server_has_leader 1\n" in text and "etcd_mvcc_db_total_size_in_bytes" in text
        store = EtcdStore([url(server)], compaction_interval_s=0)
        await store.start()
        with pytest.raises(RevisionFuture):
            await store.range(RangeRequest(b"a", revision=99))
        await store.close()
        async with session.get("/metrics") as answer:
            text = await answer.text()
        labels = 'grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"'
        assert f'grpc_server_handled_total{{grpc_code="OutOfRange",{labels}}} 1\n' in text
        families = list(text_string_to_metric_families(text))
        assert len({family.name for family in families}) == len(families) > 20
        await server.store.arm()
        async with session.get("/health") as answer:
            assert (answer.status, json.loads(await answer.text())["reason"]) == (503, "ALARM NOSPACE")
        for path, status, text in (
            ("/health?exclude=NOSPACE", 200, '{"health":"true","reason":""}'),
            ("/readyz?verbose&exclude=data_corruption", 200, "[+]serializable_read ok\n"),
            ("/livez/serializable_read", 200, "ok\n"),
            ("/readyz/nonsense", 404, "404 page not found\n"),
        ):
            async with session.get(path) as answer:
                assert answer.status == status and (await answer.text()).startswith(text), path


async def test_the_metrics_listener_shows_no_keys(tmp_path: Path) -> None:
    server = await started(tmp_path / "m", listen_metrics_urls=["http://127.0.0.1:0"])
    endpoint = f"http://127.0.0.1:{server.metrics_ports[0]}"
    async with aiohttp.ClientSession(endpoint) as session:
        async with session.get("/health") as answer:
            assert answer.status == 200
        assert (await post(session, "/v3/kv/range", {"key": b64("a")}))[0] == 404
        async with session.get("/v2/keys/") as answer:
            assert answer.status == 404
    store = EtcdStore([endpoint], compaction_interval_s=0)
    store.cluster.open()
    with pytest.raises(Unavailable):
        await store.cluster.call(
            "/etcdserverpb.KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse, safe=True, timeout_s=1
        )
    await store.cluster.close()
    await server.stop()


async def test_v2_watches_conditions_and_order(tmp_path: Path) -> None:
    async def call(method: str, path: str, **form: str) -> tuple[int, Any]:
        async with session.request(method, f"/v2/keys{path}", data=form or None) as answer:
            return answer.status, await answer.json()

    async def wait(query: str) -> Any:
        async with session.get(f"/v2/keys{query}") as answer:
            return await answer.json()

    server = await started(tmp_path / "v2")
    async with aiohttp.ClientSession(url(server)) as session:
        waiting = asyncio.create_task(wait("/dir?wait=true&recursive=true"))
        await asyncio.sleep(0.05)
        status, made = await call("PUT", "/dir/a", value="1")
        assert status == 201 and made["action"] == "set"
        assert (await waiting)["node"]["key"] == "/dir/a"
        index = made["node"]["modifiedIndex"]
        assert (await wait(f"/dir/a?wait=true&waitIndex={index}"))["node"]["value"] == "1"
        first, second = [await call("POST", "/queue", value=v) for v in "xy"]
        assert first[1]["node"]["key"] < second[1]["node"]["key"]
        listed = await wait("/queue?sorted=true&recursive=true")
        assert [n["value"] for n in listed["node"]["nodes"]] == ["x", "y"]
        assert (await call("PUT", "/dir/a", value="2", prevValue="9"))[0] == 412
        assert (await call("PUT", "/dir/a", value="2", prevIndex=str(index)))[1]["action"] == "compareAndSwap"
        for form in ({"ttl": "x"}, {"prevIndex": "x"}, {"prevExist": "x"}, {"prevValue": ""}):
            assert (await call("PUT", "/dir/a", value="2", **form))[0] == 400
    await server.stop()
    server = await started(tmp_path / "v2")  # the tree is as durable as the keys
    async with aiohttp.ClientSession(url(server)) as session, session.get("/v2/keys/dir/a") as answer:
        assert (await answer.json())["node"]["value"] == "2"
        # what came before the restart is forgotten, and says so: nobody waits for what has already happened
        async with session.get(f"/v2/keys/dir/a?wait=true&waitIndex={index}") as gone:
            assert (gone.status, (await gone.json())["errorCode"]) == (400, 401)
        status, soon = await call("PUT", "/soon", value="1", ttl="0")
        assert status == 201 and "expiration" in soon["node"]
        gone_by = soon["node"]["modifiedIndex"] + 1
        async with asyncio.timeout(10):
            assert (await wait(f"/soon?wait=true&waitIndex={gone_by}"))["action"] == "expire"
        async with session.get("/v2/stats/store") as answer:
            stats = await answer.json()
            assert (stats["setsSuccess"], stats["expireCount"]) == (1, 1)
    await server.stop()


@needs_etcdctl
@needs_etcd
async def test_a_real_etcd_starts_on_a_backup_of_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berg.etcd.v2.api.LONG", 8)  # the log begins again on the way
    server = await started(tmp_path / "berg")
    client, peer = free_port(), free_port()

    async def v2(endpoint: str, command: str, stdin: str = "") -> str:
        return await etcdctl(endpoint, *command.split(), api="2", stdin=stdin)

    for command in (
        *(
            "set /a 1",
            "set /a 2",
            "mkdir /d",
            "set /d/x üs",
            "mk --in-order /q z",
            "set --ttl 1000 /t 1",
            "update /a 3",
        ),
        *("set --swap-with-value 3 /a 4", "set /gone 1", "rm /gone", "set /gone/too 1", "rm --recursive /gone"),
        *("role add reader", "role grant --path /d/* --read reader", "set /_hidden 1", "updatedir --ttl 500 /d"),
    ):
        await v2(url(server), command)
    await v2(url(server), "user add root", "secret\n")
    await v2(url(server), "set /last 1")
    args = ("backup", "--data-dir", str(tmp_path / "berg"), "--backup-dir", str(tmp_path / "m0"))
    await etcdctl(url(server), *args, api="2")
    want = json.loads(await v2(url(server), "-o json ls --recursive --sort /"))
    await server.stop()
    real = Etcd(tmp_path, "m0", client, peer, "", "--force-new-cluster", "--enable-v2")
    real.start()
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    got = json.loads(await v2(real.endpoint, "-o json ls --recursive --sort /"))
                    break
                except AssertionError:
                    await asyncio.sleep(0.1)
        assert without_ttl(got) == without_ttl(want) and len(want["node"]["nodes"]) == 5
        assert await v2(real.endpoint, "role get reader") == "Role: reader\nKV Read:\n\t/d/*\nKV Write:\n"
        await v2(real.endpoint, "auth enable")
        assert await v2(real.endpoint, "-u root:secret user list") == "root\n"
    finally:
        real.kill()


def without_ttl(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_ttl(v) for k, v in value.items() if k != "ttl"}
    return [without_ttl(v) for v in value] if isinstance(value, list) else value


# -- TLS


@needs_etcdctl
async def test_tls_with_client_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berg.storage.etcd.cluster.TIMEOUT_S", 2.0)
    ca, stranger = CA(tmp_path / "pki"), CA(tmp_path / "other")
    cert, key = ca.server()
    server = await started(
        tmp_path / "tls",
        listen_client_urls=["https://127.0.0.1:0"],
        cert_file=str(cert),
        key_file=str(key),
        trusted_ca_file=str(ca.file),
        client_cert_auth=True,
    )
    own_cert, own_key = ca.client("root")

    def flags(ca_file: Path, cert: Path, key: Path) -> list[str]:
        return [f"--cacert={ca_file}", f"--cert={cert}", f"--key={key}"]

    mine = flags(ca.file, own_cert, own_key)
    assert await etcdctl(url(server), *mine, "put", "a", "1") == "OK\n"
    store = EtcdStore(
        [url(server)], ca_file=str(ca.file), cert_file=str(own_cert), key_file=str(own_key), compaction_interval_s=0
    )
    await store.start()
    assert (await store.range(RangeRequest(b"a"))).count == 1
    await store.close()
    with pytest.raises(AssertionError, match=r"authentication handshake|bad certificate|deadline|broken pipe|EOF"):
        await etcdctl(url(server), *flags(ca.file, *stranger.client("root")), "--command-timeout=2s", "get", "a")
    without = EtcdStore([url(server)], ca_file=str(ca.file), compaction_interval_s=0)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(without.start(), 15)
    # HTTP/1 is on the same port
    import ssl

    context = ssl.create_default_context(cafile=str(ca.file))
    context.load_cert_chain(own_cert, own_key)
    async with aiohttp.ClientSession() as session, session.get(f"{url(server)}/health", ssl=context) as answer:
        assert json.loads(await answer.text())["health"] == "true"
    if shutil.which("curl"):  # which chooses HTTP/2, and does not speak gRPC
        secrets = ("--cacert", str(ca.file), "--cert", str(own_cert), "--key", str(own_key))
        for path, data, text in (
            ("/health", None, b'"health":"true"'),
            ("/metrics", None, b"etcd_server_has_leader 1"),
            ("/v3/kv/range", '{"key":"YQ=="}', b'"value":"MQ=="'),
        ):
            command = ["curl", "-sv", "--http2", *secrets, f"{url(server)}{path}", *(("-d", data) if data else ())]
            curl = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = await curl.communicate()
            assert text in out and b"HTTP/2 200" in err, err
    # the certificate's name is who calls
    for args in (("user", "add", "root:pw"), ("user", "add", "bob:pw"), ("user", "grant-role", "root", "root")):
        await etcdctl(url(server), *mine, *args)
    await etcdctl(url(server), *mine, "auth", "enable")
    assert await etcdctl(url(server), *mine, "get", "a", "--print-value-only") == "1\n"
    bob = flags(ca.file, *ca.client("bob"))
    with pytest.raises(AssertionError, match="permission denied"):
        await etcdctl(url(server), *bob, "get", "a")
    await server.stop()
