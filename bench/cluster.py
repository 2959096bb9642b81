"""The figures of a whole cluster on this machine: start, memory, pod start, and the API's rates.

    python bench/cluster.py [--runtime sim]

Makes a cluster of its own and removes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from load import Result, Server, drive, encode

ROOT = Path(__file__).parent.parent
BERG = [sys.executable, "-m", "berg.cli.main"]
IMAGE = "registry.k8s.io/e2e-test-images/busybox:1.0"


def row(what: str, figure: str) -> None:
    print(f"{what:<58} {figure}", flush=True)


def rate(what: str, r: Result) -> None:
    errors = f"  errors {r.errors}" if r.errors else ""
    row(what, f"{r.rate:8.0f}/s   p50 {r.percentile_ms(0.5):7.2f} ms   p99 {r.percentile_ms(0.99):7.2f} ms{errors}")


def pod(name: str, *, node: str = "", grace: int = 0) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": grace,
        "automountServiceAccountToken": False,
        "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "3600"]}],
    }
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}


async def api_rates(server: Server) -> None:
    pods = "/api/v1/namespaces/bench/pods"
    maps = "/api/v1/namespaces/bench/configmaps"

    def create(kind: str) -> Any:
        def make(n: int) -> tuple[str, str, bytes, str]:
            if kind == "pods":
                body = pod(f"{kind[:1]}{n}") | {}
                body["spec"]["nodeSelector"] = {"bench": "never"}
                return "POST", pods, json.dumps(body).encode(), "application/json"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{n}"}, "data": {"k": "v" * 200}}
            return "POST", maps, json.dumps(body).encode(), "application/json"

        return make

    rate("CREATE pod, 16 clients, 1,000 of them", await drive(server, create("pods"), 16, 60, 1000))
    rate("CREATE ConfigMap, 64 clients", await drive(server, create("configmaps"), 64, 4))
    for clients in (16, 64):
        r = await drive(server, lambda n: ("GET", f"{pods}/p{n % 900 + 1}", b"", ""), clients, 4)
        rate(f"GET one pod, {clients} clients", r)
    patch = b'{"data":{"k":"w"}}'
    merge = "application/strategic-merge-patch+json"
    rate(
        "PATCH ConfigMap (strategic), 16 clients",
        await drive(server, lambda n: ("PATCH", f"{maps}/c{n % 500 + 1}", patch, merge), 16, 4),
    )
    rate(
        "LIST 1,000 pods, 16 clients",
        await drive(server, lambda n: ("GET", f"{pods}?resourceVersion=0", b"", ""), 16, 4),
    )
    await watch_fan_out(server, maps)


async def watch_fan_out(server: Server, path: str, watchers: int = 1000, events: int = 200) -> None:
    """How many events a second reach `watchers` on one kind, each event counted at each watcher."""
    tls = server.tls()
    seen = 0
    done = asyncio.Event()

    async def watcher() -> None:
        nonlocal seen
        reader, writer = await asyncio.open_connection(server.host, server.port, ssl=tls)
        writer.write(
            encode("GET", f"{path}?watch=1&resourceVersion={version}&fieldSelector=metadata.name=watched", b"", "")
        )
        await reader.readuntil(b"\r\n\r\n")
        started.append(1)
        if len(started) == watchers:
            all_started.set()
        while not done.is_set():
            data = await reader.read(1 << 16)
            seen += data.count(b'"MODIFIED"')
            if not data or seen >= watchers * events:
                done.set()
        writer.close()

    create = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}}).encode()
    await drive(server, lambda n: ("POST", path, create, "application/json"), 1, 5, 1)
    version, started, all_started = "", list[int](), asyncio.Event()
    tasks = [asyncio.create_task(watcher()) for _ in range(watchers)]
    await all_started.wait()
    began = time.perf_counter()

    def change(n: int) -> tuple[str, str, bytes, str]:
        body = json.dumps({"data": {"n": str(n)}}).encode()
        return "PATCH", f"{path}/watched", body, "application/merge-patch+json"

    await drive(server, change, 4, 60, events)
    try:
        await asyncio.wait_for(done.wait(), 60)
    except TimeoutError:
        row("watchers did not see every event", f"{seen} of {watchers * events}")
    seconds = time.perf_counter() - began
    row(f"{watchers:,} watchers on one kind, {events} events", f"{seen / seconds:8.0f} events/s delivered")
    for task in tasks:
        task.cancel()


class Cluster:
    def __init__(self, runtime: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="berg-bench-"))
        self.environment = {**os.environ, "BERG_HOME": str(self.home), "KUBECONFIG": str(self.home / "kubeconfig")}
        self.runtime = runtime

    def berg(self, *args: str) -> str:
        done = subprocess.run([*BERG, *args], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"berg {' '.join(args)}: {done.stderr}")
        return done.stdout

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        command = [*BERG, "kubectl", "--name", "bench", *args]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, input=stdin, check=False)
        if done.returncode:
            sys.exit(f"kubectl {' '.join(args)}: {done.stderr}")
        return done.stdout

    @property
    def server(self) -> Server:
        spec = json.loads((self.home / "bench" / "spec.json").read_text())
        pki = self.home / "bench" / "pki"
        return Server("127.0.0.1", spec["api_port"], pki / "admin.crt", pki / "admin.key")


def start_figures(c: Cluster) -> None:
    began = time.perf_counter()
    process = subprocess.Popen(
        [*BERG, "up", "--name", "bench", "--runtime", c.runtime], env=c.environment, stderr=subprocess.PIPE, text=True
    )
    from berg.lifecycle.probe import Probe

    kubeconfig = c.home / "bench" / "admin.kubeconfig"
    while not (kubeconfig.exists() and Probe(kubeconfig).ready()):
        time.sleep(0.01)
        if process.poll() not in (None, 0):
            assert process.stderr
            sys.exit(process.stderr.read())
    row("berg up to a ready API, empty directory", f"{time.perf_counter() - began:8.2f} s")
    process.wait()
    row("berg up to node Ready and DNS answering", f"{time.perf_counter() - began:8.2f} s")


async def pod_start(server: Server, count: int = 50) -> None:
    """From the create request to Running seen by a watch, one after another."""
    tls = server.tls()
    reader, writer = await asyncio.open_connection(server.host, server.port, ssl=tls)
    writer.write(encode("GET", "/api/v1/namespaces/default/pods?watch=1", b"", ""))
    await reader.readuntil(b"\r\n\r\n")
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def follow() -> None:
        rest = b""
        while data := await reader.read(1 << 16):
            for line in (rest + data).split(b"\n"):
                rest = line
                if line.startswith(b"{"):
                    try:
                        lines.put_nowait(json.loads(line))
                        rest = b""
                    except ValueError:
                        continue

    task = asyncio.create_task(follow())
    result = Result()
    for i in range(count):
        body = json.dumps(pod(f"start-{i}")).encode()
        began = time.perf_counter()
        await drive(
            server, lambda n, b=body: ("POST", "/api/v1/namespaces/default/pods", b, "application/json"), 1, 5, 1
        )  # type: ignore[misc]
        while True:
            event = await asyncio.wait_for(lines.get(), 30)
            o = event["object"]
            if o["metadata"].get("name") == f"start-{i}" and o.get("status", {}).get("phase") == "Running":
                break
        result.latencies.append(time.perf_counter() - began)
    task.cancel()
    writer.close()
    row(
        f"pod start over {count} pods",
        f"p50 {result.percentile_ms(0.5):7.0f} ms   p99 {result.percentile_ms(0.99):7.0f} ms",
    )


def memory(c: Cluster, when: str) -> None:
    [status] = json.loads(c.berg("status", "--name", "bench", "-o", "json"))
    for p in status["processes"]:
        row(f"memory of {p['role']}, {when}", f"{p['memoryBytes'] / 2**20:8.1f} MiB")
    row(f"memory together, {when}", f"{sum(p['memoryBytes'] for p in status['processes']) / 2**20:8.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="auto")
    c = Cluster(parser.parse_args().runtime)
    try:
        start_figures(c)
        time.sleep(5)
        memory(c, "idle")
        images = c.home / "images"
        if json.loads((c.home / "bench" / "spec.json").read_text())["runtime"] == "berg":
            build = [sys.executable, str(ROOT / "tools/build_images.py"), "--out", str(images), f"busybox={IMAGE}"]
            subprocess.run(build, check=True, capture_output=True)
            for archive in images.glob("*.tar"):
                c.berg("image", "import", "--name", "bench", str(archive))
            uvloop.run(pod_start(c.server))
            memory(c, "with 50 pods")
            c.kubectl("delete", "pods", "--all", "--wait=false")
        c.kubectl("create", "namespace", "bench")
        time.sleep(1)
        uvloop.run(api_rates(c.server))
    finally:
        c.berg("down", "--name", "bench", "--purge")


if __name__ == "__main__":
    main()
