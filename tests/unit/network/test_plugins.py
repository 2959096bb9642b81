"""The CNI caller, with plugins that are small scripts, and with the real ones where they are installed."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from berg.network.cni.configuration import BadConfiguration, first, parse
from berg.network.cni.plugins import CNINetwork
from berg.runtime.network import PodNetworkError, PodNetworkRequest, PortMapping

REQUEST = PodNetworkRequest(
    sandbox_id="abc",
    namespace="ns",
    name="pod",
    uid="uid",
    netns_path="/proc/self/ns/net",
    port_mappings=[PortMapping(80, 8080)],
    annotations={"kubernetes.io/egress-bandwidth": "10M"},
)

# Notes each call, and answers as the files beside it say.
PLUGIN = """#!/bin/sh
cd "$(dirname "$0")"
name=$(basename "$0")
{ echo "$CNI_COMMAND $name $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS"; cat; echo; } >>calls
[ -e "$name.$CNI_COMMAND.fails" ] && { cat "$name.$CNI_COMMAND.fails"; exit 1; }
[ "$CNI_COMMAND" = ADD ] && cat "$name.result"
exit 0
"""


class Plugins:
    def __init__(self, directory: Path, version: str) -> None:
        self.directory = directory
        plugins = [
            {"type": "first", "some": "key"},
            {"type": "second", "capabilities": {"portMappings": True, "bandwidth": True, "other": True}},
        ]
        (directory / "conf").mkdir()
        (directory / "bin").mkdir()
        write(directory / "conf" / "10-net.conflist", {"cniVersion": version, "name": "net", "plugins": plugins})
        for name, ip in (("first", "10.0.0.5/24"), ("second", "10.0.0.5/24")):
            path = directory / "bin" / name
            path.write_text(PLUGIN)
            path.chmod(0o755)
            write(directory / "bin" / f"{name}.result", {"cniVersion": version, "by": name, "ips": [{"address": ip}]})
        self.network = CNINetwork(
            str(directory / "state"), configurations=str(directory / "conf"), programs=[str(directory / "bin")]
        )

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        lines = (self.directory / "bin" / "calls").read_text().splitlines()
        (self.directory / "bin" / "calls").unlink()
        return [(lines[n], json.loads(lines[n + 1])) for n in range(0, len(lines), 2)]

    def fail(self, name: str, command: str, answer: str) -> None:
        (self.directory / "bin" / f"{name}.{command}.fails").write_text(answer)


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    return Plugins(tmp_path, "1.1.0")


async def test_add_goes_forward_with_the_result_before(plugins: Plugins) -> None:
    assert (await plugins.network.setup(REQUEST)).ips == ["10.0.0.5"]
    (first_call, first_config), (second_call, second_config) = plugins.calls()
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=uid"
    assert first_call == f"ADD first abc /proc/self/ns/net eth0 {arguments}"
    assert first_config == {"type": "first", "some": "key", "name": "net", "cniVersion": "1.1.0"}
    assert second_call.startswith("ADD second")
    assert second_config["prevResult"]["by"] == "first" and "capabilities" not in second_config
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}
    bandwidth = {"egressRate": 10_000_000, "egressBurst": 2**31 - 1}
    assert second_config["runtimeConfig"] == {"portMappings": [mapping], "bandwidth": bandwidth}


async def test_delete_goes_back_with_the_last_result_and_the_configuration_of_then(plugins: Plugins) -> None:
    await plugins.network.setup(REQUEST)
    plugins.calls()
    os.remove(plugins.directory / "conf" / "10-net.conflist")
    await plugins.network.teardown(REQUEST)
    calls = plugins.calls()
    assert [call.split()[:2] for call, _ in calls] == [["DEL", "second"], ["DEL", "first"]]
    assert all(config["prevResult"]["by"] == "second" for _, config in calls)
    await plugins.network.teardown(REQUEST)
    assert os.listdir(plugins.directory / "state" / "results") == []


async def test_a_failed_add_is_taken_back(plugins: Plugins) -> None:
    plugins.fail("second", "ADD", '{"cniVersion":"1.1.0","code":7,"msg":"no more room","details":"really"}')
    with pytest.raises(PodNetworkError, match=r'plugin type="second" failed: no more room; really'):
        await plugins.network.setup(REQUEST)
    assert [call.split()[0] for call, _ in plugins.calls()] == ["ADD", "ADD", "DEL", "DEL"]


async def test_check(plugins: Plugins) -> None:
    await plugins.network.setup(REQUEST)
    plugins.calls()
    await plugins.network.check(REQUEST)
    assert [call.split()[:2] for call, _ in plugins.calls()] == [["CHECK", "first"], ["CHECK", "second"]]
    plugins.fail("first", "CHECK", "")
    with pytest.raises(PodNetworkError):
        await plugins.network.check(REQUEST)


async def test_status_and_gc_since_1_1(plugins: Plugins) -> None:
    assert await plugins.network.status() is None
    plugins.fail("first", "STATUS", '{"code":50,"msg":"warming up"}')
    assert "warming up" in (await plugins.network.status() or "")
    plugins.calls()
    await plugins.network.setup(REQUEST)
    plugins.calls()
    await plugins.network.gc(["other"])
    calls = plugins.calls()
    assert [call.split()[:2] for call, _ in calls] == [
        ["DEL", "second"],
        ["DEL", "first"],
        ["GC", "first"],
        ["GC", "second"],
    ]
    assert calls[-1][1]["cni.dev/valid-attachments"] == [{"containerID": "other", "ifname": "eth0"}]


async def test_older_versions_have_neither(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, "0.4.0")
    assert await plugins.network.status() is None
    await plugins.network.gc([])
    assert not (tmp_path / "bin" / "calls").exists()


async def test_a_plugin_that_is_not_there(plugins: Plugins) -> None:
    (plugins.directory / "bin" / "second").unlink()
    with pytest.raises(PodNetworkError, match='failed to find plugin "second" in path'):
        await plugins.network.setup(REQUEST)


def test_the_first_usable_configuration_counts(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="no network config found"):
        first(str(tmp_path))
    (tmp_path / "05-broken.conf").write_text("{")
    (tmp_path / "00-ignored.txt").write_text("{}")
    write(tmp_path / "20-later.conf", {"name": "later", "type": "x"})
    write(tmp_path / "10-first.conflist", {"cniVersion": "0.4.0", "name": "first", "plugins": [{"type": "x"}]})
    assert first(str(tmp_path)).name == "first"


@pytest.mark.parametrize(
    "written",
    [
        [],
        {"plugins": [{"type": "x"}]},
        {"name": "n"},
        {"name": "n", "plugins": []},
        {"name": "n", "plugins": [{}]},
        {"name": "../n", "plugins": [{"type": "x"}]},
        {"name": "n", "plugins": [{"type": "../../bin/sh"}]},
    ],
)
def test_unusable_configurations(written: Any) -> None:
    with pytest.raises(BadConfiguration):
        parse(written, "here")


def test_the_highest_version_that_both_know() -> None:
    plugins = [{"type": "x"}]
    assert (
        parse(
            {"cniVersion": "0.4.0", "cniVersions": ["1.1.0", "1.0.0", "9.0.0"], "name": "n", "plugins": plugins}, ""
        ).version
        == "1.1.0"
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/usr/lib/cni/bridge"), reason="needs root and CNI plugins")
async def test_the_real_plugins(tmp_path: Path) -> None:
    from berg.network.cni import rtnetlink as rt

    from .test_bridge import Namespaces, unpin

    assert shutil.which("ip") is not None
    (tmp_path / "conf").mkdir()
    bridge = {"type": "bridge", "bridge": "cni-unitreal", "isGateway": True}
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "ranges": [[{"subnet": "10.231.8.0/24"}]]}
    conflist = {"cniVersion": "1.0.0", "name": "real", "plugins": [{**bridge, "ipam": ipam}, {"type": "tuning"}]}
    write(tmp_path / "conf" / "10-real.conflist", conflist)
    network = CNINetwork(str(tmp_path / "state"), configurations=str(tmp_path / "conf"), programs=["/usr/lib/cni"])
    namespaces = Namespaces(tmp_path)
    netns = namespaces.make()
    request = PodNetworkRequest("real-sandbox", "ns", "pod", "uid", netns)
    try:
        assert (await network.setup(request)).ips == ["10.231.8.2"]
        with rt.Connection(netns) as inside:
            index = inside.links()["eth0"].index
            assert "10.231.8.2/24" in map(str, inside.addresses(index))
        await network.check(request)
        await network.teardown(request)
        with rt.Connection(netns) as inside:
            assert "eth0" not in inside.links()
        assert stat.S_ISREG(os.stat(netns).st_mode)
    finally:
        unpin(netns)
        with rt.Connection() as netlink:
            if "cni-unitreal" in netlink.links():
                netlink.request(rt.delete_link("cni-unitreal"))
