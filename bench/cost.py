"""CPU time of one request in the API server, without sockets and TLS: what the code itself costs.

    python bench/cost.py [--profile] [WHAT ...]      # create:pods update:configmaps … ; default: all

Requests go to the server's chain in this process, 16 at once, over a durable store. Of many short rounds the
quickest counts: other work on the machine makes rounds slower, never quicker, so this is the figure to compare two
versions of the code by where rates are noise. `--profile` shows where the time goes instead.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from berg.apiserver.config import Config
from berg.apiserver.http.message import Request, User
from berg.apiserver.server import APIServer

ADMIN = User("admin", groups=("system:masters", "system:authenticated"))
NAMESPACE = "/api/v1/namespaces/bench"
ROUNDS, PER_ROUND, AT_ONCE, KEPT = 30, 150, 16, 200
KINDS = {"configmaps": b"ConfigMap", "pods": b"Pod"}
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
ALL = [
    *(f"get:{kind}" for kind in KINDS),
    *(f"create:{kind}" for kind in KINDS),
    "update:configmaps",
    *(f"{verb}:{kind}" for verb in ("patch", "apply", "delete") for kind in KINDS),
]


def body_of(kind: str, name: str, text: str = "") -> bytes:
    meta = b'"metadata":{"name":"%b","labels":{"app":"bench","shard":"s1"},"annotations":{"t":"%b"}}' % (
        name.encode(),
        text.encode(),
    )
    if kind == "configmaps":
        return b'{"apiVersion":"v1","kind":"ConfigMap",%b,"data":{"pad":"%b"}}' % (meta, b"x" * 512)
    container = (
        b'{"name":"main","image":"registry.example/app:v1","command":["/app","--port=8080"],"env":[{"name":"A","value":'
        b'"1"},{"name":"B","value":"2"}],"ports":[{"containerPort":8080}],"resources":{"requests":{"cpu":"100m",'
        b'"memory":"64Mi"},"limits":{"cpu":"200m","memory":"128Mi"}}}'
    )
    spec = b'"spec":{"automountServiceAccountToken":false,"nodeName":"no-such-node","containers":[%b]}' % container
    return b'{"apiVersion":"v1","kind":"Pod",%b,%b}' % (meta, spec)


def asked(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> Request:
    path, _, query = path.partition("?")
    headers = {"host": "bench", "user-agent": "bench/1", "accept": "application/json", "content-type": content_type}
    return Request(method, path, query, headers, body, None, "127.0.0.1:5", ADMIN)


def make(verb: str, kind: str, n: int, created: str) -> Request:
    one = f"{NAMESPACE}/{kind}/kept-{n % KEPT}"
    match verb:
        case "get":
            return asked("GET", one)
        case "create":
            return asked("POST", f"{NAMESPACE}/{kind}", body_of(kind, f"{created}-{n}"))
        case "delete":
            return asked("DELETE", f"{NAMESPACE}/{kind}/{created}-{n}?gracePeriodSeconds=0")
        case "update":
            return asked("PUT", one, body_of(kind, f"kept-{n % KEPT}", str(n)))
        case "patch":
            return asked("PATCH", one, b'{"metadata":{"annotations":{"t":"%d"}}}' % n, STRATEGIC)
    applied = b'{"apiVersion":"v1","kind":"%b","metadata":{"name":"kept-%d","annotations":{"t":"%d"}}}' % (
        KINDS[kind],
        n % KEPT,
        n,
    )
    return asked("PATCH", f"{one}?fieldManager=bench&force=true", applied, APPLY)


async def answer(server: APIServer, requests: Iterator[Request]) -> None:
    for each in requests:
        response = await server.handle(each)
        assert response.status < 300, response.body


async def seconds_of(server: APIServer, requests: list[Request]) -> float:
    """CPU seconds for each."""
    shared = iter(requests)
    began = time.process_time()
    await asyncio.gather(*(answer(server, shared) for _ in range(AT_ONCE)))
    return (time.process_time() - began) / len(requests)


async def measure(server: APIServer, what: str) -> None:
    verb, _, kind = what.partition(":")
    rounds = []
    for number in range(ROUNDS):
        created = f"{verb}-{number}"
        if verb == "delete":
            await answer(server, iter([make("create", kind, n, created) for n in range(PER_ROUND)]))
        # other numbers in each round, so that every change is one; what is created has a name of its round
        start = 0 if verb == "delete" else number * PER_ROUND
        rounds.append(await seconds_of(server, [make(verb, kind, start + n, created) for n in range(PER_ROUND)]))
    rounds.sort()
    print(
        f"{what:20} {rounds[0] * 1e6:7.0f} us   quarter of the rounds {rounds[ROUNDS // 4] * 1e6:7.0f} us", flush=True
    )


async def main(wanted: list[str], profile: bool) -> None:
    directory = Path(tempfile.mkdtemp(prefix="berg-bench-"))
    server = APIServer(Config(secure_port=-1, data_dir=str(directory)))
    await server.start()
    try:
        first = [asked("POST", "/api/v1/namespaces", b'{"metadata":{"name":"bench"}}')]
        first.append(asked("POST", f"{NAMESPACE}/serviceaccounts", b'{"metadata":{"name":"default"}}'))
        for kind in KINDS:
            first += [asked("POST", f"{NAMESPACE}/{kind}", body_of(kind, f"kept-{n}")) for n in range(KEPT)]
        await answer(server, iter(first))
        for what in wanted:
            if profile:
                import cProfile
                import pstats

                with cProfile.Profile() as profiler:
                    await measure(server, what)
                pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
            else:
                await measure(server, what)
    finally:
        await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=ALL, metavar="WHAT")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    uvloop.run(main(options.what, options.profile))
