"""What `berg down` takes out of the kernel, by the packages that put it there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from berg.lifecycle import hostnet
from berg.lifecycle.down import Cleaner
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec


def containers_and_networks(layout: Layout, spec: ClusterSpec) -> None:
    """Every sandbox with its containers, mounts, namespaces and groups, then the bridges they hung on."""
    if spec.runtime == "sim":
        return
    asyncio.run(_nodes(layout, spec))
    hostnet.remove(spec)


async def _nodes(layout: Layout, spec: ClusterSpec) -> None:
    from berg.cli.node import own_config, pod_network
    from berg.network.cni.bridge import BridgeNetwork
    from berg.runtime.own.destroy import destroy

    for node in spec.nodes:
        network = pod_network(layout, spec, node)
        if isinstance(network, BridgeNetwork):
            await destroy(own_config(layout, spec, node), network)
        else:
            await _end_pods(spec, f"/berg-{spec.unique}")
        if not node.netns:  # the rest goes with the namespace
            await network.destroy()


async def _end_pods(spec: ClusterSpec, group: str) -> None:
    """Removes this cluster's pods from a runtime that serves others too: those under our control group."""
    import json

    from berg.runtime.api import cri_pb2 as pb
    from berg.runtime.cri import CRIError
    from berg.runtime.remote import RemoteRuntime

    runtime = RemoteRuntime(spec.containerd_socket)  # type: ignore[abstract]
    try:
        for sandbox in (await runtime.list_pod_sandbox(pb.ListPodSandboxRequest())).items:
            asked = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox.id, verbose=True)
            info = json.loads((await runtime.pod_sandbox_status(asked)).info.get("info", "{}"))
            if str(info.get("config", {}).get("linux", {}).get("cgroup_parent", "")).startswith(f"{group}/"):
                await runtime.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
                await runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
    except CRIError as e:
        print(f"containerd keeps pods of this cluster: {e}", file=sys.stderr)
    finally:
        await runtime.stop()


def rules(layout: Layout, spec: ClusterSpec) -> None:
    if spec.runtime == "sim":
        return
    from berg.cli.node import proxy_table
    from berg.network import routes
    from berg.proxy.proxy import cleanup

    cleanup(proxy_table(spec))
    routes.flush(spec.pod_cidr)


def remains(layout: Layout, spec: ClusterSpec) -> None:
    """Volumes' mounts, the runtime's passing state, control groups."""
    from berg.lifecycle.remains import remove_groups, remove_tree, unmount_below

    unmount_below(layout.root)
    remove_tree(Path("/run/berg") / spec.unique)
    remove_groups(f"berg-{spec.unique}")


CLEANERS: list[Cleaner] = [containers_and_networks, rules, remains]
