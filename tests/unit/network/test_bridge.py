"""The bridge network on real namespaces: without containers, by sockets made inside."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from berg.machinery import nftables as nft
from berg.network.cni import rtnetlink as rt
from berg.network.cni.bridge import BridgeNetwork, bridge_name
from berg.runtime.network import PodNetworkError, PodNetworkRequest, PortMapping
from berg.runtime.own.launcher import in_namespace, new_namespaces, pin_namespace, unpin
from berg.runtime.own.namespaces import _loopback_up

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nftables"),
]

NAME = "unittest"
CIDR = "10.231.7.0/24"


class Namespaces:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.paths: list[str] = []

    def make(self) -> str:
        path = str(self._directory / f"netns{len(self.paths)}")

        def work() -> None:
            with new_namespaces("net"):
                pin_namespace("net", path)
                _loopback_up()

        _in_thread(work)
        self.paths.append(path)
        return path

    def listen(self, netns: str, port: int = 0) -> socket.socket:
        sockets: list[socket.socket] = []

        def work() -> None:
            with in_namespace(netns, "net"):
                sockets.append(socket.create_server(("0.0.0.0", port)))

        _in_thread(work)
        return sockets[0]

    def connect(self, netns: str, address: tuple[str, int]) -> socket.socket:
        sockets: list[socket.socket] = []

        def work() -> None:
            with in_namespace(netns, "net"):
                made = socket.socket()
            made.settimeout(3)
            made.connect(address)
            sockets.append(made)

        _in_thread(work)
        return sockets[0]


def _in_thread(work) -> None:  # type: ignore[no-untyped-def]
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[Namespaces]:
    made = Namespaces(tmp_path)
    yield made
    for path in made.paths:
        unpin(path)


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[BridgeNetwork]:
    network = BridgeNetwork(NAME, str(tmp_path / "network"), pod_cidrs=[CIDR])
    await network.start()
    yield network
    await network.destroy()


def request(number: int, netns: str, *ports: PortMapping) -> PodNetworkRequest:
    return PodNetworkRequest(f"{number:064x}", "default", f"pod{number}", f"uid{number}", netns, ports)


def speak(client: socket.socket, server: socket.socket) -> tuple[str, bytes]:
    """Who the server sees, and what arrives."""
    connection, (peer, _) = server.accept()
    with client, connection:
        client.sendall(b"hello")
        return peer, connection.recv(5)


async def test_pods_reach_each_other_and_the_node(network: BridgeNetwork, namespaces: Namespaces) -> None:
    one, two = namespaces.make(), namespaces.make()
    assert (await network.setup(request(1, one))).ips == ["10.231.7.2"]
    assert (await network.setup(request(2, two))).ips == ["10.231.7.3"]
    with namespaces.listen(two, 80) as server:
        assert speak(namespaces.connect(one, ("10.231.7.3", 80)), server) == ("10.231.7.2", b"hello")
    with socket.create_server(("10.231.7.1", 0)) as server:
        client = namespaces.connect(two, server.getsockname())
        assert speak(client, server) == ("10.231.7.3", b"hello")


async def test_a_host_port_from_the_node_from_a_pod_and_from_itself(
    network: BridgeNetwork, namespaces: Namespaces
) -> None:
    one, two = namespaces.make(), namespaces.make()
    await network.setup(request(1, one, PortMapping(80, 18431)))
    await network.setup(request(2, two))
    with namespaces.listen(one, 80) as server:
        for address in ("127.0.0.1", "10.231.7.1"):
            assert speak(socket.create_connection((address, 18431), 3), server)[1] == b"hello"
        for netns in (one, two):
            assert speak(namespaces.connect(netns, ("10.231.7.1", 18431)), server)[1] == b"hello"
        await network.teardown(request(1, one))
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", 18431), 3)


async def test_a_host_port_on_one_address_only(network: BridgeNetwork, namespaces: Namespaces) -> None:
    netns = namespaces.make()
    await network.setup(request(1, netns, PortMapping(80, 18432, "tcp", "127.0.0.1")))
    with namespaces.listen(netns, 80) as server:
        assert speak(socket.create_connection(("127.0.0.1", 18432), 3), server)[1] == b"hello"
        with pytest.raises(OSError):
            socket.create_connection(("10.231.7.1", 18432), 3)


async def test_setup_and_teardown_again(network: BridgeNetwork, namespaces: Namespaces) -> None:
    netns = namespaces.make()
    await network.setup(request(1, netns))
    await network.teardown(request(1, netns))
    await network.teardown(request(1, netns))
    assert (await network.setup(request(1, netns))).ips == ["10.231.7.3"]


async def test_what_fails_leaves_nothing(network: BridgeNetwork, tmp_path: Path) -> None:
    with pytest.raises(PodNetworkError):
        await network.setup(request(1, str(tmp_path / "no-netns")))
    assert sorted(os.listdir(tmp_path / "network" / "addresses")) == ["last-10.231.7.0-24"]
    assert os.listdir(tmp_path / "network" / "pods") == []


async def test_a_restart_goes_on(network: BridgeNetwork, namespaces: Namespaces, tmp_path: Path) -> None:
    one, two = namespaces.make(), namespaces.make()
    await network.setup(request(1, one, PortMapping(80, 18433)))
    again = BridgeNetwork(NAME, str(tmp_path / "network"), pod_cidrs=[CIDR])
    await again.start()
    assert (await again.setup(request(2, two))).ips == ["10.231.7.3"]
    with namespaces.listen(one, 80) as server:
        assert speak(socket.create_connection(("127.0.0.1", 18433), 3), server)[1] == b"hello"
    await again.gc({f"{2:064x}"})
    assert os.listdir(tmp_path / "network" / "pods") == [f"{2:064x}.json"]


async def test_a_bridge_that_somebody_deleted_comes_back_with_the_next_pod(
    network: BridgeNetwork, namespaces: Namespaces
) -> None:
    one, two = namespaces.make(), namespaces.make()
    await network.setup(request(1, one))
    with rt.Connection() as netlink:
        netlink.request(rt.delete_link(network.bridge))
    await network.setup(request(2, two))
    with socket.create_server(("10.231.7.1", 0)) as server:
        assert speak(namespaces.connect(two, server.getsockname()), server) == ("10.231.7.3", b"hello")


async def test_dual_stack(tmp_path: Path, namespaces: Namespaces) -> None:
    network = BridgeNetwork(NAME, str(tmp_path / "network"), pod_cidrs=[CIDR, "fd00:231:7::/64"])
    await network.start()
    try:
        netns = namespaces.make()
        assert (await network.setup(request(1, netns))).ips == ["10.231.7.2", "fd00:231:7::2"]
        with rt.Connection(netns) as inside:
            addresses = {str(address) for address in inside.addresses(2)}
        assert {"10.231.7.2/24", "fd00:231:7::2/64"} <= addresses
    finally:
        await network.destroy()


async def test_not_ready_without_a_cidr_and_ready_with_one(tmp_path: Path, namespaces: Namespaces) -> None:
    network = BridgeNetwork(NAME, str(tmp_path / "network"))
    assert "no pod CIDR" in (await network.status() or "")
    with pytest.raises(PodNetworkError):
        await network.setup(request(1, namespaces.make()))
    await network.set_pod_cidr(CIDR)
    try:
        assert await network.status() is None
    finally:
        await network.destroy()


async def test_destroy_leaves_nothing(network: BridgeNetwork, namespaces: Namespaces, tmp_path: Path) -> None:
    await asyncio.gather(*(network.setup(request(n, namespaces.make(), PortMapping(80, 18440 + n))) for n in range(4)))
    with rt.Connection() as netlink:
        before = netlink.links()
    assert (
        network.bridge in before and sum(link.master == before[network.bridge].index for link in before.values()) == 4
    )
    await network.destroy()
    with rt.Connection() as netlink:
        after = netlink.links()
    assert network.bridge not in after and set(before) - set(after) >= {network.bridge}
    assert network.table not in nft.run("list tables")
    assert "network" not in os.listdir(tmp_path)


def test_an_interface_has_a_short_name() -> None:
    assert bridge_name("default") == "cni-default"
    long = bridge_name("a-cluster-with-a-long-name")
    assert len(long) == 15 and long != bridge_name("a-cluster-with-a-long-name2")


def test_a_refused_request_raises() -> None:
    with rt.Connection() as netlink, pytest.raises(OSError):
        netlink.request(rt.delete_link("no-such-link-x"))
