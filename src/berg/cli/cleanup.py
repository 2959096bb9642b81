"""What `berg down` takes out of the kernel, by the packages that put it there."""

from __future__ import annotations

import asyncio
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
    from berg.runtime.own.destroy import destroy

    for node in spec.nodes:
        network = pod_network(layout, spec, node)
        if spec.runtime == "berg":
            await destroy(own_config(layout, spec, node), network)
        if not node.netns:  # the rest goes with the namespace
            await network.destroy()


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
    remove_tree(Path("/run/berg") / layout.root.name)
    remove_groups(f"berg-{spec.name}")


CLEANERS: list[Cleaner] = [containers_and_networks, rules, remains]
