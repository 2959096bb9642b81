"""One real node's components, put together: runtime, network, kubelet, proxy, DNS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from berg.cli.gate import ApiGate, Permission, Together
from berg.client.rest import Client
from berg.dns.server import Config as DNSConfig
from berg.dns.server import DNSServer
from berg.kubelet.config import KubeletConfig
from berg.kubelet.kubelet import Kubelet
from berg.lifecycle.host import port_if_free
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec, NodeSpec
from berg.machinery.resources import resource
from berg.network.cni.bridge import BridgeNetwork
from berg.network.cni.conflist import ConflistNetwork
from berg.network.network import Config as NetworkConfig
from berg.network.network import Network
from berg.proxy.proxy import Config as ProxyConfig
from berg.proxy.proxy import Proxy
from berg.runtime.own.config import OwnConfig

API_PATIENCE_S = 3.0


def proxy_table(spec: ClusterSpec) -> str:
    """Clusters on one machine must not share a table."""
    return "kube-proxy" if spec.index == 0 else f"kube-proxy-{spec.index}"


def runtime_state(spec: ClusterSpec, node: NodeSpec) -> Path:
    """What a reboot ends lies where a reboot clears it."""
    return Path("/run/berg") / spec.unique / node.name


def cgroup_root(spec: ClusterSpec, node: NodeSpec) -> str:
    """Nodes on one machine must not take one another's groups for orphans."""
    return f"/berg-{spec.unique}/{node.name}"


def components(layout: Layout, spec: ClusterSpec, node: NodeSpec) -> list[Any]:
    def client(who: str) -> Client:
        return Client.from_kubeconfig(str(layout.kubeconfig(who)))

    pods = pod_network(layout, spec, node)
    for_network, for_dns = client("network"), client("dns")
    network = Network(for_network, NetworkConfig(node.name, layout.node(node.name)), pods)
    runtime, parts = _runtime(layout, spec, node, pods)
    kubelet = Kubelet(client(f"kubelet-{node.name}"), runtime, kubelet_config(layout, spec, node))
    network.changed = lambda: asyncio.ensure_future(kubelet.state.check())
    proxy = Proxy(
        client("proxy"),
        ProxyConfig(
            node_name=node.name,
            table=proxy_table(spec),
            cluster_cidrs=(spec.pod_cidr,),
            healthz_port=port_if_free(10256),
            metrics_port=port_if_free(10249),
            feature_gates=spec.feature_gates,
        ),
    )
    dns = DNSServer(
        for_dns,
        DNSConfig(node_name=node.name, listen_address=node.address, port=0, publish_address=node.address),
    )
    # The kubelet needs no API to begin with (static pods, and what ran before), but an API that is starting too is
    # better waited for than met with a refusal.
    soon = ApiGate(layout, spec, patience_s=API_PATIENCE_S)
    policies, services = resource("networkpolicies.networking.k8s.io"), resource("services")
    permitted = Together(Permission(for_network, policies), Permission(for_dns, services))
    return [*parts, soon, kubelet, ApiGate(layout, spec), permitted, Together(network, proxy, dns)]


def pod_network(layout: Layout, spec: ClusterSpec, node: NodeSpec) -> BridgeNetwork | ConflistNetwork:
    if spec.runtime == "containerd":
        return ConflistNetwork(spec.unique, spec.bridge, layout.node(node.name) / "cni" / "iptables-before.json")
    return BridgeNetwork(
        spec.unique, str(layout.node(node.name) / "cni"), cluster_cidrs=[spec.pod_cidr], bridge=spec.bridge
    )


def _runtime(
    layout: Layout, spec: ClusterSpec, node: NodeSpec, network: BridgeNetwork | ConflistNetwork
) -> tuple[Any, list[Any]]:
    if isinstance(network, ConflistNetwork):
        from berg.runtime.remote import RemoteRuntime

        remote = RemoteRuntime(spec.containerd_socket)  # type: ignore[abstract]  # its methods are made at run time
        return remote, [remote]
    from berg.cli.image_service import ImageService
    from berg.runtime.own.images.registry import Registries
    from berg.runtime.own.runtime import BergRuntime

    own = BergRuntime(own_config(layout, spec, node), network, Registries(mirrors=spec.registry_mirrors))
    return own, [own, ImageService(layout.run / f"images-{node.name}.sock", own.images)]


def own_config(layout: Layout, spec: ClusterSpec, node: NodeSpec) -> OwnConfig:
    return OwnConfig(
        root=str(layout.node(node.name) / "runtime"),
        state=str(runtime_state(spec, node)),
        default_cgroup_parent=cgroup_root(spec, node),
    )


def kubelet_config(layout: Layout, spec: ClusterSpec, node: NodeSpec) -> KubeletConfig:
    home, pki = layout.node(node.name) / "kubelet", layout.pki
    (home / "manifests").mkdir(parents=True, exist_ok=True)
    return KubeletConfig(
        node_name=node.name,
        node_ip=node.address,
        root_dir=str(home),
        pod_logs_dir=str(home / "pod-logs"),
        container_log_links_dir=str(home / "container-logs"),
        port=node.kubelet_port,
        healthz_port=port_if_free(10248),
        tls_cert_file=str(pki / f"kubelet-{node.name}-serving.crt"),
        tls_private_key_file=str(pki / f"kubelet-{node.name}-serving.key"),
        client_ca_file=str(pki / "ca.crt"),
        static_pod_path=str(home / "manifests"),
        cluster_dns=[spec.dns_address],
        cluster_domain="cluster.local",
        cgroup_root=cgroup_root(spec, node),
        fail_swap_on=False,
        feature_gates=spec.feature_gates,
    )
