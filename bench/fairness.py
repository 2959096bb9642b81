"""A noisy client beside a quiet one, with and without priority and fairness.

    python bench/fairness.py [--seconds 3] [--noisy 48] [--objects 1000]

The noisy client lists all ConfigMaps over many connections, the quiet one reads one object at a time. Printed is what
the quiet one sees alone, beside the noise without flow control, and beside the noise with it.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from load import Result, read_answer

MAPS = "/api/v1/namespaces/default/configmaps"
USERS = ("admin", "noisy", "quiet")


def start(directory: Path, port: int, *, fair: bool, inflight: int) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    tokens = {user: secrets.token_hex(16) for user in USERS}
    groups = {"admin": "system:masters"}
    lines = [f'{token},{user},{user},"{groups.get(user, "")}"' for user, token in tokens.items()]
    (directory / "tokens.csv").write_text("\n".join(lines) + "\n")
    command = [
        sys.executable, "-m", "berg.cli.main", "apiserver", f"--data-dir={directory}", f"--secure-port={port}",
        "--bind-address=127.0.0.1", f"--token-auth-file={directory}/tokens.csv",
        f"--enable-priority-and-fairness={str(fair).lower()}", f"--max-requests-inflight={inflight}",
        f"--max-mutating-requests-inflight={inflight // 2}",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), tokens


def tls() -> ssl.SSLContext:
    return ssl._create_unverified_context()


def ask(port: int, token: str, method: str, path: str, body: object = None) -> int:
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, context=tls(), timeout=10) as answer:
        return int(answer.status)


async def reads(port: int, token: str, path: str, until: float, into: Result) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls())
    head = f"GET {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\r\n"
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(head.encode())
        code, size = await read_answer(reader)
        into.latencies.append(time.perf_counter() - began)
        into.count += code == 200
        into.errors += code != 200
        into.bytes += size
        if code == 429:
            await asyncio.sleep(1)  # as Retry-After says
    writer.close()


async def noise(port: int, token: str, clients: int) -> None:
    """In a process of its own: what it reads must not hold up the quiet client. Makes noise until its input ends;
    prints when it has begun, and then what it heard and what was refused since."""
    heard = Result()
    tasks = [asyncio.create_task(reads(port, token, MAPS, float("inf"), heard)) for _ in range(clients)]
    while clients and heard.count + heard.errors < clients:  # noqa: ASYNC110 - only the counts tell
        await asyncio.sleep(0.05)
    print("begun", flush=True)
    before, refused = heard.count, heard.errors
    await asyncio.to_thread(sys.stdin.read)
    print(heard.count - before, heard.errors - refused, flush=True)
    for task in tasks:
        task.cancel()


async def run(port: int, tokens: dict[str, str], noisy: int, seconds: float) -> tuple[Result, int, int]:
    quiet = Result()
    own = [sys.executable, __file__, "--noise", str(noisy), "--token", tokens["noisy"], "--port", str(port)]
    loud = await asyncio.create_subprocess_exec(*own, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert loud.stdout is not None
    await loud.stdout.readline()
    await reads(port, tokens["quiet"], f"{MAPS}/m0", time.perf_counter() + seconds, quiet)
    told, _ = await loud.communicate(b"")
    count, errors = told.split()
    return quiet, int(count), int(errors)


def prepared(port: int, token: str, objects: int) -> None:
    for _ in range(600):
        try:
            ask(port, token, "GET", "/readyz")
            break
        except OSError:
            time.sleep(0.05)
    subjects = [{"kind": "User", "name": u, "apiGroup": "rbac.authorization.k8s.io"} for u in ("noisy", "quiet")]
    role = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
    body = {"metadata": {"name": "bench"}, "subjects": subjects, "roleRef": role}
    ask(port, token, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls(), timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for i in range(objects):
        connection.request("POST", MAPS, json.dumps({"metadata": {"name": f"m{i}"}, "data": {"k": "x" * 500}}), headers)
        connection.getresponse().read()
    connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--noisy", type=int, default=48)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--inflight", type=int, default=400)
    parser.add_argument("--port", type=int, default=17643)
    parser.add_argument("--noise", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.noise is not None:
        asyncio.run(noise(options.port, options.token, options.noise))
        return 0
    print(f"{'':34} {'quiet/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'noisy/s':>8} {'429':>6}")
    for fair in (False, True):
        with tempfile.TemporaryDirectory() as directory:
            server, tokens = start(Path(directory), options.port, fair=fair, inflight=options.inflight)
            try:
                prepared(options.port, tokens["admin"], options.objects)
                for noisy in (0, options.noisy):
                    quiet, count, refused = asyncio.run(run(options.port, tokens, noisy, options.seconds))
                    title = f"{'with' if fair else 'without'} flow control, {noisy} noisy"
                    print(
                        f"{title:34} {quiet.count / options.seconds:8.0f} {quiet.percentile_ms(0.5):8.1f} "
                        f"{quiet.percentile_ms(0.99):8.1f} {count / options.seconds:8.0f} {refused:6}"
                    )
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
