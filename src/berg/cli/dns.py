"""`berg dns`: the cluster's DNS alone."""

from __future__ import annotations

import click


@click.command(name="dns")
@click.option("--kubeconfig", required=True, help="How to reach the API server.")
@click.option("--listen", default="0.0.0.0", show_default=True, help="The address to listen at.")
@click.option("--port", default=53, show_default=True, help="UDP and TCP; 0 for any free one.")
@click.option("--cluster-domain", default="cluster.local", show_default=True, help="The zone served from the API.")
@click.option("--resolv-conf", default="/etc/resolv.conf", show_default=True, help="Whom to ask for the rest.")
@click.option("--publish-address", default="", help="Announce this server in the kube-dns service, at this address.")
@click.option("--hostname-override", help="The node's name, when it is announced.  [default: the host's]")
def command(
    kubeconfig: str,
    listen: str,
    port: int,
    cluster_domain: str,
    resolv_conf: str,
    publish_address: str,
    hostname_override: str | None,
) -> None:
    """Run the cluster's DNS alone.

    \b
    Example:
      berg dns --kubeconfig dns.kubeconfig --port 1053
    """
    from berg.cli.run import run
    from berg.client.rest import Client
    from berg.dns.server import Config, DNSServer
    from berg.lifecycle.host import hostname

    config = Config(
        node_name=hostname_override or hostname(),
        listen_address=listen,
        port=port,
        domain=cluster_domain,
        resolv_conf=resolv_conf,
        publish_address=publish_address,
    )
    run(lambda: [DNSServer(Client.from_kubeconfig(kubeconfig), config)])
