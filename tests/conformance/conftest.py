"""The engines that the store's contract is held against."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from berg.storage.embedded import EmbeddedStore
from berg.storage.interface import DeleteRequest, Store, Unavailable

ENGINES = ["memory", "file", "etcd", "berg-etcd"]
"""`etcd` and `berg-etcd` are Berg's client on a real etcd and on Berg's own server"""


PROGRESS_S = 0.1
"""how often a watch that wants it is told where it stands"""
_NOTICES = {f"ETCD_{when}WATCH_PROGRESS_NOTIFY_INTERVAL": f"{PROGRESS_S}s" for when in ("", "EXPERIMENTAL_")}
"""a setting that was renamed in 3.6; as a flag, the name that a release does not know would stop it"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Etcd:
    """One real etcd process on loopback."""

    def __init__(self, folder: Path, name: str, client: int, peer: int, cluster: str = "", *more: str) -> None:
        self.folder = folder
        self.endpoint = f"http://127.0.0.1:{client}"
        peers = f"http://127.0.0.1:{peer}"
        self._args = [
            "etcd",
            *("--name", name, "--data-dir", str(folder / name)),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", cluster or f"{name}={peers}", "--log-level", "error"),
            *more,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **_NOTICES}
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


async def ready(store: Store) -> None:
    """Starts the store as soon as the cluster answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                await store.start()
                return
            except Unavailable:
                await asyncio.sleep(0.05)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "etcd" and shutil.which("etcd") is None:
        pytest.skip("needs etcd (apt install etcd-server)")
    return str(request.param)


@pytest.fixture(scope="session")
def real_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a single real member, for the whole run."""
    etcd = Etcd(tmp_path_factory.mktemp("etcd"), "m0", free_port(), free_port())
    etcd.start()
    yield etcd.endpoint
    etcd.kill()


@pytest.fixture
async def store(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    if engine == "etcd":
        from berg.storage.etcd.client import EtcdStore

        opened = EtcdStore([request.getfixturevalue("real_etcd")], compaction_interval_s=0)
        await ready(opened)
        for lease in await opened.leases():
            await opened.lease_revoke(lease)
        await opened.delete(DeleteRequest(b"\0", b"\0"))
    elif engine == "berg-etcd":
        from berg.etcd.server import Config, EtcdServer
        from berg.storage.etcd.client import EtcdStore

        engine_in_memory = EmbeddedStore(None)
        engine_in_memory.progress_interval_s = PROGRESS_S
        await engine_in_memory.start()
        config = Config(listen_client_urls=["http://127.0.0.1:0"], store=engine_in_memory)
        config.watch_progress_notify_interval_s = PROGRESS_S
        server = EtcdServer(config)
        await server.start()
        opened = EtcdStore([f"http://127.0.0.1:{server.ports[0]}"], compaction_interval_s=0)
        await opened.start()
        yield opened
        await opened.close()
        await server.stop()
        await engine_in_memory.close()
        return
    else:
        opened = embedded = EmbeddedStore(None if engine == "memory" else tmp_path / "store.db")
        embedded.progress_interval_s = PROGRESS_S
        await opened.start()
    yield opened
    await opened.close()
