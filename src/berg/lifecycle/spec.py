"""What a cluster was asked to be. Written once by `up`, read by every process of the cluster.

The file also tells which layout the data directory has, so that a Berg that does not know it refuses it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from berg.lifecycle.errors import BadDataDir
from berg.machinery.private import write_private

LAYOUT = 1
KUBERNETES = "v1.37.0"


@dataclass(slots=True)
class NodeSpec:
    """One real node. `netns` is empty for the one that is the machine itself."""

    name: str
    address: str
    kubelet_port: int = 10250
    netns: str = ""


@dataclass(slots=True)
class ClusterSpec:
    name: str
    index: int
    """tells clusters on one machine apart: address ranges, bridges, rule tables"""
    api_port: int
    advertise_address: str
    runtime: str
    """berg, sim, or containerd"""
    nodes: list[NodeSpec] = field(default_factory=list)
    sim_nodes: int = 0
    containerd_socket: str = "/run/containerd/containerd.sock"
    controllers_port: int = 10257
    scheduler_port: int = 10259
    """where their health and metrics are: the well-known ports, or the next free ones"""
    feature_gates: dict[str, bool] = field(default_factory=dict)
    """of every component"""
    runtime_config: dict[str, str] = field(default_factory=dict)
    """API versions that are served although they are not by default, or the other way"""
    registry_mirrors: dict[str, list[str]] = field(default_factory=dict)
    """registry, or `*` for all → URLs that are asked before it"""
    layout: int = LAYOUT
    kubernetes: str = KUBERNETES

    @property
    def unique(self) -> str:
        """What the cluster is called where clusters of other roots may have the same name: in the kernel, in /run."""
        return self.name if self.index == 0 else f"{self.name}-{self.index}"

    @property
    def service_cidr(self) -> str:
        return f"10.{96 + self.index}.0.0/16"

    @property
    def pod_cidr(self) -> str:
        return f"10.{244 - self.index}.0.0/16"

    @property
    def api_service(self) -> str:
        """The address of the `kubernetes` service."""
        return f"10.{96 + self.index}.0.1"

    @property
    def dns_address(self) -> str:
        return f"10.{96 + self.index}.0.10"

    @property
    def bridge(self) -> str:
        return f"berg{self.index}"

    @property
    def context(self) -> str:
        return f"berg-{self.name}"

    @property
    def roles(self) -> list[str]:
        """The processes of the cluster, in the order of their start."""
        nodes = [f"node-{n.name}" for n in self.nodes] if self.runtime != "sim" else ["sim"]
        return ["apiserver", "controllers", *nodes, *(["sim"] if self.sim_nodes and "sim" not in nodes else [])]

    def write(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=2).encode())

    @classmethod
    def read(cls, path: Path) -> ClusterSpec:
        """Raises BadDataDir when the file is not a spec of a layout known here."""
        try:
            data = json.loads(path.read_bytes())
            layout = int(data["layout"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadDataDir(
                f"{path} can't be read: {e}",
                "The data directory is damaged. Put the file back from a copy, or start anew with: berg down --purge",
            ) from e
        if layout != LAYOUT:
            raise BadDataDir(
                f"{path.parent} was made by a Berg with data layout {layout}; this one knows layout {LAYOUT}",
                "Use the Berg that made it, or start anew with: berg down --purge",
            )
        known = {f.name for f in fields(cls)}
        nodes = [NodeSpec(**n) for n in data.pop("nodes", [])]
        return cls(**{k: v for k, v in data.items() if k in known}, nodes=nodes)
