"""`berg proxy`: the service proxy alone, with kube-proxy's flag names."""

from __future__ import annotations

import click

from berg.cli.feature_gates import feature_gates as gates_option


@click.command(name="proxy")
@click.option("--kubeconfig", required=True, help="How to reach the API server.")
@click.option("--hostname-override", help="The node's name.  [default: the host's]")
@click.option("--cluster-cidr", default="", help="Pod addresses; other sources are masqueraded. Two with a comma.")
@click.option("--proxy-mode", default="nftables", type=click.Choice(["nftables"]), help="How rules are written.")
@click.option("--bind-address", default="0.0.0.0", show_default=True, help="Where health is served.")
@click.option("--healthz-port", default=10256, show_default=True, help="0 for none.")
@click.option("--metrics-port", default=10249, show_default=True, help="0 for none.")
@gates_option
@click.option("--cleanup", is_flag=True, help="Take the rules away and end.")
def command(
    kubeconfig: str,
    hostname_override: str | None,
    cluster_cidr: str,
    proxy_mode: str,
    bind_address: str,
    healthz_port: int,
    metrics_port: int,
    feature_gates: dict[str, bool],
    cleanup: bool,
) -> None:
    """Run the service proxy alone.

    \b
    Example:
      berg proxy --kubeconfig /etc/kubernetes/proxy.conf --cluster-cidr 10.244.0.0/16
    """
    from berg.cli.run import run
    from berg.client.rest import Client
    from berg.lifecycle.host import hostname
    from berg.proxy import proxy

    if cleanup:
        proxy.cleanup("kube-proxy")
        return
    config = proxy.Config(
        node_name=hostname_override or hostname(),
        cluster_cidrs=tuple(c for c in cluster_cidr.split(",") if c),
        healthz_port=healthz_port,
        metrics_port=metrics_port,
        bind_address=bind_address,
        ipv6=":" in cluster_cidr,
        feature_gates=feature_gates,
    )
    run(lambda: [proxy.Proxy(Client.from_kubeconfig(kubeconfig), config)])
