"""The pod network of a runtime that calls CNI plugins itself (containerd, CRI-O): a configuration file in its
directory, made when the node's podCIDR is known, with the standard bridge, host-local and portmap plugins.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from berg.network.cni import leavings
from berg.runtime.network import PodNetworkError

CONFIG_DIR = "/etc/cni/net.d"
VERSION = "0.4.0"
"""what containerd 1.6 and the plugins beside it speak"""


class ConflistNetwork:
    def __init__(self, name: str, bridge: str, record: Path, directory: str = CONFIG_DIR) -> None:
        """`record`: the file that says what of iptables was there before the plugins were first called."""
        self.path = Path(directory) / f"10-berg-{name}.conflist"
        self._name, self._bridge, self._record = f"berg-{name}", bridge, record

    async def set_pod_cidr(self, cidrs: str) -> None:
        """Raises PodNetworkError when the file can't be written."""
        try:
            await asyncio.to_thread(self._write, cidrs.split(","))
        except OSError as e:
            raise PodNetworkError(f"the CNI configuration can't be written: {e}") from e

    def _write(self, cidrs: list[str]) -> None:
        leavings.remember(self._record)
        routes = [{"dst": "::/0" if ":" in cidr else "0.0.0.0/0"} for cidr in cidrs]
        bridge = {
            "type": "bridge",
            "bridge": self._bridge,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": cidr}] for cidr in cidrs], "routes": routes},
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        conflist = {"cniVersion": VERSION, "name": self._name, "plugins": [bridge, portmap]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(conflist, indent=2))
        temporary.replace(self.path)

    async def destroy(self) -> None:
        """The file, the bridge, and what the plugins left; the pods are the runtime's to end."""
        await asyncio.to_thread(self._destroy)

    def _destroy(self) -> None:
        from berg.network.cni import rtnetlink as rt

        self.path.unlink(missing_ok=True)
        with rt.Connection() as netlink:
            if self._bridge in netlink.links():
                netlink.request(rt.delete_link(self._bridge))
        leavings.clear(self._record)
