"""The API server alone, over TLS, with a durable store: reads, writes, lists, watches.

    python bench/api.py [--seconds 3] [--pods 1000] [--watchers 1000]
    python bench/api.py --port 16443 --certificate admin.crt --key admin.key   # any API server that runs on loopback

Budgets stand in the design; upstream's figures on such a machine are in the table that this prints beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import Make, Server, drive, encode

POD = {
    "metadata": {"labels": {"app": "web", "pod-template-hash": "6f8d9c"}, "annotations": {"note": "x" * 200}},
    "spec": {
        "serviceAccountName": "default",
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": f"c{i}",
                "image": "registry.example.com/team/web:1.2.3",
                "ports": [{"containerPort": 8080 + i}],
                "env": [{"name": f"VARIABLE_{n}", "value": f"value-{n}"} for n in range(4)],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            }
            for i in range(2)
        ],
    },
}
PODS, MAPS = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/configmaps"
WRITTEN = 256
"""ConfigMaps that are changed again and again"""
JSON, STRATEGIC, APPLY = "application/json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"


def start(directory: Path, port: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "berg.cli.main",
        "apiserver",
        "--data-dir",
        str(directory),
        "--secure-port",
        str(port),
    ]
    code = "from berg.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *command[3:]], stderr=subprocess.DEVNULL)


async def ready(directory: Path, port: int) -> tuple[Server, float]:
    began = time.perf_counter()
    pki = directory / "pki"
    server = Server("127.0.0.1", port, pki / "admin.crt", pki / "admin.key")
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, FileNotFoundError):
            result = await drive(server, lambda i: ("GET", "/readyz", b"", JSON), 1, 1, 1)
            if not result.errors and result.count:
                return server, time.perf_counter() - began
        await asyncio.sleep(0.01)


async def measure(
    server: Server, title: str, make: Make, clients: int, seconds: float, upstream: str, limit: int = 0
) -> int:
    """How many requests there were."""
    r = await drive(server, make, clients, seconds, limit)
    errors = f"  {r.errors} errors" if r.errors else ""
    print(
        f"{title:34} {clients:4} clients {r.rate:9.0f}/s   p50 {r.percentile_ms(0.5):7.2f} ms   "
        f"p99 {r.percentile_ms(0.99):7.2f} ms   upstream here {upstream}{errors}",
        flush=True,
    )
    return r.count


def body(obj: object) -> bytes:
    return json.dumps(obj).encode()


def map_of(name: str, value: str = "0") -> dict[str, object]:
    labels = {"bench": "watched"} if name.startswith("m") else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": {"k": "x" * 1000, "n": value},
    }


async def run(options: argparse.Namespace, server: Server) -> None:
    s = options.seconds
    await drive(
        server,
        lambda i: ("POST", "/api/v1/namespaces/default/serviceaccounts", body({"metadata": {"name": "default"}}), JSON),
        1,
        5,
        1,
    )
    await drive(server, lambda i: ("POST", MAPS, body(map_of(f"m{i - 1}")), JSON), 1, 60, WRITTEN)

    def pod(i: int) -> tuple[str, str, bytes, str]:
        return "POST", PODS, body({**POD, "metadata": {**POD["metadata"], "name": f"p{i:06}"}}), JSON  # type: ignore[dict-item]

    await measure(server, "CREATE pods", pod, 16, 600, "510-1,280", options.pods)
    get = ("GET", f"{PODS}/p000001", b"", JSON)
    for clients, upstream in ((1, "-"), (16, "2,420-4,310"), (64, "3,180-5,360")):
        await measure(server, "GET one pod", lambda i: get, clients, s, upstream)
    for clients, upstream in ((1, "4 (of 10,000)"), (16, "39-85 (of 1,000)")):
        await measure(server, f"LIST {options.pods} pods", lambda i: ("GET", PODS, b"", JSON), clients, s, upstream)
    await measure(
        server,
        "LIST by a label of none",
        lambda i: ("GET", f"{PODS}?labelSelector=app%3Dnone", b"", JSON),
        16,
        s,
        "88 (of 10,000)",
    )
    for clients in (1, 16, 64):
        await writes(server, clients, s)
    await fan_out(server, options.watchers, s)
    await measure(
        server,
        "DELETE pods",
        lambda i: ("DELETE", f"{PODS}/p{i:06}?gracePeriodSeconds=0", b"", JSON),
        16,
        600,
        "-",
        options.pods,
    )


async def writes(server: Server, clients: int, seconds: float) -> None:
    """Each verb on ConfigMaps of 1 KiB; what was created is deleted in the end."""

    def of(i: int) -> str:
        return f"{MAPS}/m{i % WRITTEN}"

    def upstream(at_16: str, at_64: str = "-") -> str:
        return at_16 if clients == 16 else at_64 if clients == 64 else "-"

    async def of_maps(title: str, make: Make, told: str, limit: int = 0) -> int:
        return await measure(server, f"{title} ConfigMap", make, clients, 600 if limit else seconds, told, limit)

    made = await of_maps(
        "CREATE", lambda i: ("POST", MAPS, body(map_of(f"c{clients}-{i}")), JSON), upstream("-", "2,430-2,970")
    )
    await of_maps(
        "UPDATE", lambda i: ("PUT", of(i), body(map_of(f"m{i % WRITTEN}", str(i))), JSON), upstream("1,310-1,760")
    )
    await of_maps(
        "PATCH (strategic)",
        lambda i: ("PATCH", of(i), body({"data": {"n": str(i)}}), STRATEGIC),
        upstream("1,360-1,800"),
    )
    await of_maps(
        "apply",
        lambda i: (
            "PATCH",
            f"{of(i)}?fieldManager=bench&force=true",
            body(map_of(f"m{i % WRITTEN}", str(i))),
            APPLY,
        ),
        upstream("1,150-1,340"),
    )
    await of_maps("DELETE", lambda i: ("DELETE", f"{MAPS}/c{clients}-{i}", b"", JSON), "-", made)


async def fan_out(server: Server, watchers: int, seconds: float) -> None:
    """Every watcher in a process of its own loop counts the events it reads, while another writes."""
    code = "import asyncio, sys; sys.path.insert(0, sys.argv[1]); import api; asyncio.run(api.watchers(*sys.argv[2:]))"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        str(Path(__file__).parent),
        str(server.port),
        str(server.certificate),
        str(server.key),
        str(watchers),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    await process.stdout.readline()  # all are watching
    r = await drive(
        server,
        lambda i: ("PUT", f"{MAPS}/m{i % 16}", body(map_of(f"m{i % 16}", str(time.time_ns()))), JSON),
        8,
        seconds,
    )
    await asyncio.sleep(1)
    process.stdin.write(b"\n")
    events, last, lags = json.loads(await process.stdout.readline())
    await process.wait()
    print(
        f"{'watch fan-out':34} {watchers:4} watchers {events / r.seconds:8.0f} events/s of {r.rate:.0f} writes/s   "
        f"lag p50 {lags[0]:.0f} ms, p99 {lags[1]:.0f} ms, the last read after {last:.2f} s   "
        "upstream here 139,000-195,000, p99 88-154 ms",
        flush=True,
    )


async def watchers(port: str, certificate: str, key: str, count: str) -> None:
    server = Server("127.0.0.1", int(port), Path(certificate), Path(key))
    seen = 0
    last = time.perf_counter()
    lags: list[float] = []
    tls = server.tls()

    async def watch(number: int) -> None:
        nonlocal seen, last
        reader, writer = await asyncio.open_connection(server.host, server.port, ssl=tls)
        writer.write(encode("GET", f"{MAPS}?watch=1&resourceVersion=0&labelSelector=bench%3Dwatched", b"", JSON))
        await reader.readuntil(b"\r\n\r\n")
        started.append(None)
        if len(started) == int(count):
            everyone.set()
        while data := await reader.read(1 << 18):
            if measuring:
                seen += data.count(b'{"type":"MODIFIED"')
                last = time.perf_counter()
                if number % 20 == 0:  # enough to tell how late they are
                    now = time.time_ns()
                    lags.extend((now - int(at)) / 1e6 for at in re.findall(rb'"n":"(\d{19})"', data))

    started: list[None] = []
    everyone = asyncio.Event()
    measuring = False
    tasks = [asyncio.ensure_future(watch(n)) for n in range(int(count))]
    await everyone.wait()
    await asyncio.sleep(1)
    measuring = True
    began = time.perf_counter()
    print("watching", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    lags.sort()
    shown = [lags[int(len(lags) * q)] for q in (0.5, 0.99)] if lags else [0, 0]
    print(json.dumps([seen, last - began, shown]), flush=True)
    for task in tasks:
        task.cancel()
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--port", type=int, default=26443)
    parser.add_argument("--certificate", type=Path, help="of an administrator of a server that runs already")
    parser.add_argument("--key", type=Path)
    options = parser.parse_args()
    if options.certificate:
        asyncio.run(run(options, Server("127.0.0.1", options.port, options.certificate, options.key)))
        return 0
    directory = Path(tempfile.mkdtemp(prefix="berg-bench-"))
    process = start(directory, options.port)
    try:
        import uvloop

        async def all_of_it() -> None:
            server, seconds = await ready(directory, options.port)
            print(f"from start to ready: {seconds:.2f} s")
            await run(options, server)
            resident = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
            print(f"resident memory after all: {int(resident) * 4096 >> 20} MiB")

        uvloop.run(all_of_it())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
