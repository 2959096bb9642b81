"""The rules, judged by the kernel: real connections inside a network namespace of the test's own."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from berg.machinery.nftables import Nft
from berg.proxy import conntrack
from berg.proxy.model import ServicePort
from berg.proxy.proxy import Config, _Rules

pytestmark = pytest.mark.root
CLONE_NEWNET = 0x40000000


@pytest.fixture
def kernel() -> Iterator[_Rules]:
    """A namespace of this thread's own; what the test does in threads must be started inside it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0
    for command in ("ip link set lo up", "ip addr add 10.0.0.1/32 dev lo", "ip addr add 10.0.0.2/32 dev lo",
                    "ip addr add 192.168.7.1/32 dev lo", "ip route add default dev lo"):  # fmt: skip
        subprocess.run(command.split(), check=True)
    rules = _Rules(Config("n1", cluster_cidrs=("10.0.0.0/24",)), 4)
    yield rules
    rules.close()
    libc.setns(before, CLONE_NEWNET)
    os.close(before)


def serve(address: str, port: int = 8080) -> None:
    """A server that tells each client its own address and the client's."""
    listener = socket.create_server((address, port))

    def answer() -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{address} {peer[0]}".encode())

    threading.Thread(target=answer, daemon=True).start()


def ask(address: str, port: int, source: str = "10.0.0.9") -> str:
    with socket.create_connection((address, port), timeout=2) as c:
        return c.recv(100).decode()


def port(**more: object) -> ServicePort:
    values: dict[str, object] = {
        "name": "default/web:",
        "protocol": "tcp",
        "port": 80,
        "cluster_ip": "10.96.0.7",
        "internal": (("10.0.0.1", 8080), ("10.0.0.2", 8080)),
        "external": (("10.0.0.1", 8080), ("10.0.0.2", 8080)),
    }
    return ServicePort(**(values | more))  # type: ignore[arg-type]


@pytest.fixture
def servers(kernel: _Rules) -> None:
    serve("10.0.0.1")
    serve("10.0.0.2")


@pytest.mark.usefixtures("servers")
def test_a_cluster_ip_reaches_every_endpoint(kernel: _Rules) -> None:
    kernel.sync({"default/web": [port()]})
    seen = Counter(ask("10.96.0.7", 80).split()[0] for _ in range(40))
    assert set(seen) == {"10.0.0.1", "10.0.0.2"}
    assert min(seen.values()) >= 5


@pytest.mark.usefixtures("servers")
def test_endpoints_come_and_go_and_the_last_one_leaves_a_refusal(kernel: _Rules) -> None:
    kernel.sync({"default/web": [port()]})
    kernel.sync({"default/web": [port(internal=(("10.0.0.2", 8080),))]})
    assert {ask("10.96.0.7", 80).split()[0] for _ in range(10)} == {"10.0.0.2"}
    kernel.sync({"default/web": [port(internal=(), external=())]})
    with pytest.raises(ConnectionRefusedError):
        ask("10.96.0.7", 80)
    kernel.sync({"default/web": []})
    nft = Nft()
    for container in ("map ip kube-proxy services", "map ip kube-proxy endpoints", "set ip kube-proxy cluster-ips"):
        assert "elements" not in nft.run(f"list {container}")
    nft.close()


@pytest.mark.usefixtures("servers")
def test_an_address_shared_by_two_services_stays_while_one_of_them_lives(kernel: _Rules) -> None:
    kernel.sync(
        {"default/web": [port(), port(name="default/web:b", port=81)], "default/x": [port(cluster_ip="10.96.0.8")]}
    )
    kernel.sync({"default/web": [port()]})
    kernel.sync({"default/x": []})
    assert ask("10.96.0.7", 80)
    with pytest.raises(ConnectionRefusedError):
        ask("10.96.0.7", 81)


@pytest.mark.usefixtures("servers")
def test_a_node_port_is_served_on_the_nodes_address(kernel: _Rules) -> None:
    kernel.sync({"default/web": [port(node_port=30080)]})
    assert ask("192.168.7.1", 30080).split()[0] in ("10.0.0.1", "10.0.0.2")
    kernel.sync({"default/web": [port(node_port=30080, external=())]})
    with pytest.raises(ConnectionRefusedError):
        ask("192.168.7.1", 30080)


@pytest.mark.usefixtures("servers")
def test_affinity_keeps_a_client_at_its_endpoint(kernel: _Rules) -> None:
    kernel.sync({"default/web": [port(affinity_s=60)]})
    assert len({ask("10.96.0.7", 80).split()[0] for _ in range(12)}) == 1
    first = ask("10.96.0.7", 80).split()[0]
    kernel.sync({"default/web": [port(affinity_s=60, internal=((first, 8080),))]})
    assert ask("10.96.0.7", 80).split()[0] == first
    kernel.sync({"default/web": [port()]})
    assert len({ask("10.96.0.7", 80).split()[0] for _ in range(40)}) == 2


@pytest.mark.usefixtures("servers")
def test_a_new_proxy_takes_over_the_table(kernel: _Rules) -> None:
    kernel.sync({"default/web": [port()]})
    other = _Rules(Config("n1", cluster_cidrs=("10.0.0.0/24",)), 4)
    other.sync({"default/web": [port(internal=(("10.0.0.1", 8080),))]})
    assert {ask("10.96.0.7", 80).split()[0] for _ in range(10)} == {"10.0.0.1"}
    other.close()


def test_every_shape_of_service_is_accepted(kernel: _Rules) -> None:
    shapes = [
        port(external_ips=("1.2.3.4",), source_ranges=("10.0.0.0/8",)),
        port(name="default/u:", protocol="udp", port=53, cluster_ip="10.96.0.10", affinity_s=10, node_port=30053),
        port(
            name="default/s:", protocol="sctp", port=9, cluster_ip="10.96.0.11", preserve_source=True, node_port=30009
        ),
        port(name="default/d:", port=82, external=(), drop_external=True, node_port=30082, external_ips=("1.2.3.5",)),
    ]
    kernel.sync({"default/all": shapes})
    kernel.sync({"default/all": []})
    kernel.sync({"default/all": shapes[::-1]})


def test_six(kernel: _Rules) -> None:
    six = _Rules(Config("n1", cluster_cidrs=("fd01::/64",), ipv6=True), 6)
    six.sync({"default/web": [port(cluster_ip="fd00::7", internal=(("fd01::1", 8080),), external=(), affinity_s=5)]})
    six.sync({"default/web": [port(cluster_ip="fd00::7", internal=(("fd01::1", 8080),), external=())]})
    six.close()


def test_udp_flows_to_an_endpoint_that_is_gone_are_forgotten(kernel: _Rules) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("10.0.0.1", 8080))
    listener.settimeout(2)
    udp = port(protocol="udp", internal=(("10.0.0.1", 8080),), external=())
    kernel.sync({"default/web": [udp]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("10.96.0.7", 80))
        assert listener.recv(10) == b"x"
        assert conntrack.forget([udp], 4) == 0, "a flow to a present endpoint stays"
        assert conntrack.forget([port(protocol="udp", internal=(("10.0.0.2", 8080),))], 4) == 1
        assert conntrack.forget([port(protocol="udp", internal=(("10.0.0.2", 8080),))], 4) == 0, "it is gone"
    listener.close()
