"""The seam between a runtime and the pod network: a runtime makes the network namespace, someone else connects it.

The body is in `network/cni`. A runtime calls `setup` once per sandbox that has a network of its own, with the namespace
pinned in a file, and `teardown` before it unpins it. `teardown` may be called again, and for a sandbox whose setup
failed or was never called, and succeeds then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PortMapping:
    container_port: int
    host_port: int
    protocol: str = "tcp"
    """`tcp`, `udp` or `sctp`."""
    host_ip: str = ""
    """Empty: every address of the node."""


@dataclass(frozen=True, slots=True)
class PodNetworkRequest:
    sandbox_id: str
    namespace: str
    name: str
    uid: str
    netns_path: str
    port_mappings: Sequence[PortMapping] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class PodNetworkResult:
    ips: Sequence[str]
    """The pod's addresses, the primary one first; never empty."""
    interface: str = "eth0"
    nameservers: Sequence[str] = ()


class PodNetworkError(Exception):
    """The pod could not be connected; the text goes into the pod's FailedCreatePodSandBox event."""


class PodNetwork(Protocol):
    """A network may also have `async gc(keep: Collection[str])`, which tears down every sandbox that is not among
    these: what a crash or a reboot left. The runtime calls it when it starts."""

    async def setup(self, request: PodNetworkRequest) -> PodNetworkResult:
        """Connects a pod. All or nothing: what fails leaves nothing behind. Raises PodNetworkError."""
        ...

    async def teardown(self, request: PodNetworkRequest) -> None: ...

    async def status(self) -> str | None:
        """None when pods can be connected, otherwise why not (shown as the node's NetworkNotReady message)."""
        ...
