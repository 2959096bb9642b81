"""The Lease by which API servers know of one another."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from typing import Any

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.hooks.identity_lease import identity
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock, rfc3339_micro

from .served_api import Served

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
OWN = {"apiserver.kubernetes.io/identity": "kube-apiserver"}


def test_the_name_is_made_from_the_hosts() -> None:
    host = socket.gethostname().encode()
    said = len(host).to_bytes(2, "big") + host + b"\x00\x0ekube-apiserver"
    hashed = base64.b32encode(hashlib.sha256(said).digest()[:16]).decode()
    assert identity() == "apiserver-" + hashed.rstrip("=").lower()


async def test_it_stays_when_the_server_starts_anew_and_has_another_holder() -> None:
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    seen: list[Any] = []
    try:
        for _ in range(2):
            server = APIServer(Config(secure_port=-1, store=store, clock=clock))
            await server.start()
            try:
                seen.append(await Served(server, clock).get(f"{LEASES}/{identity()}"))
            finally:
                await server.stop()
    finally:
        await store.close()
    assert seen[0]["metadata"]["uid"] == seen[1]["metadata"]["uid"]
    assert seen[0]["spec"]["holderIdentity"] != seen[1]["spec"]["holderIdentity"]


async def test_leases_of_servers_that_are_gone_are_deleted(served: Served) -> None:
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 3600, "renewTime": rfc3339_micro(served.clock.now())}
    for name, labels in (("gone", OWN), ("other", {})):
        await served.create(LEASES, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    async with asyncio.timeout(30):
        while (await served.raw("GET", f"{LEASES}/gone")).status == 200:
            await served.clock.advance(900)
    assert (await served.raw("GET", f"{LEASES}/other")).status == 200
    assert (await served.raw("GET", f"{LEASES}/{identity()}")).status == 200
