"""What `berg down` takes out of the kernel, by the packages that put it there."""

from __future__ import annotations

from berg.lifecycle.down import Cleaner
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec


def containers(layout: Layout, spec: ClusterSpec) -> None:
    if spec.runtime != "berg":
        return
    import asyncio

    from berg.cli.node import cgroup_root, runtime_state
    from berg.runtime.own.config import OwnConfig
    from berg.runtime.own.destroy import destroy

    for node in spec.nodes:
        config = OwnConfig(
            root=str(layout.node(node.name) / "runtime"),
            state=str(runtime_state(layout, node)),
            default_cgroup_parent=cgroup_root(spec, node),
        )
        asyncio.run(destroy(config))


def networks(layout: Layout, spec: ClusterSpec) -> None:
    if spec.runtime == "sim":
        return
    from berg.cli.node import proxy_table
    from berg.lifecycle import hostnet
    from berg.network import routes
    from berg.network.cni.bridge import destroy
    from berg.proxy.proxy import cleanup

    destroy(bridge=spec.bridge, table=f"berg-{spec.name}")
    cleanup(proxy_table(spec))
    routes.flush()
    hostnet.remove(spec)


CLEANERS: list[Cleaner] = [containers, networks]
