"""A quiet client beside one that creates objects whose rules cost as much as rules may.

    python bench/expressions.py [--seconds 5] [--hostile 4]

The quiet one reads one object at a time. Printed is what it sees alone, and beside clients that create custom
resources which are refused only when their rules have spent all that an object may.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fairness import MAPS, ask, prepared, reads, start, tls
from load import Result, read_answer

THINGS = "/apis/example.com/v1/namespaces/default/things"
NUMBERS = {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}
RULES = [{"rule": f"self.all(a, self.all(b, a + b != -{i}))"} for i in range(1, 11)]
DEFINITION: dict[str, Any] = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            f"list{i}": {**NUMBERS, "x-kubernetes-validations": [rule]} for i, rule in enumerate(RULES)
                        },
                    }
                },
            }
        ],
    },
}
HOSTILE = {
    "apiVersion": "example.com/v1",
    "kind": "Thing",
    "metadata": {"generateName": "t-"},
    **{f"list{i}": list(range(1000)) for i in range(len(RULES))},
}


async def creations(port: int, token: str, into: Result) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls())
    body = json.dumps(HOSTILE)
    head = f"POST {THINGS} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    while True:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        code, _ = await read_answer(reader)
        into.count += code == 422
        into.errors += code != 422


async def hostility(port: int, token: str, clients: int) -> None:
    """In a process of its own, until its input ends."""
    made = Result()
    tasks = [asyncio.create_task(creations(port, token, made)) for _ in range(clients)]
    await asyncio.to_thread(sys.stdin.read)
    print(made.count, made.errors, flush=True)
    for task in tasks:
        task.cancel()


async def run(port: int, tokens: dict[str, str], clients: int, seconds: float) -> tuple[Result, str]:
    quiet = Result()
    own = [sys.executable, __file__, "--as-hostile", str(clients), "--token", tokens["admin"], "--port", str(port)]
    other = await asyncio.create_subprocess_exec(*own, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    await asyncio.sleep(1.5 if clients else 0)
    await reads(port, tokens["quiet"], f"{MAPS}/m0", time.perf_counter() + seconds, quiet)
    told, _ = await other.communicate(b"")
    return quiet, told.decode().strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--hostile", type=int, default=4)
    parser.add_argument("--port", type=int, default=17653)
    parser.add_argument("--as-hostile", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_hostile is not None:
        asyncio.run(hostility(options.port, options.token, options.as_hostile))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        server, tokens = start(Path(directory), options.port, fair=True, inflight=400)
        try:
            prepared(options.port, tokens["admin"], 1)
            definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            ask(options.port, tokens["admin"], "POST", definitions, DEFINITION)
            time.sleep(1)
            print(f"{'':12} {'quiet/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}  refused, otherwise answered")
            for clients in (0, options.hostile):
                quiet, told = asyncio.run(run(options.port, tokens, clients, options.seconds))
                times = sorted(quiet.latencies)
                p50, p99, most = (1000 * times[min(int(len(times) * q), len(times) - 1)] for q in (0.5, 0.99, 1))
                rate = quiet.count / options.seconds
                print(f"{clients:>4} hostile {rate:>8.0f} {p50:>8.1f} {p99:>8.1f} {most:>8.1f}  {told}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
