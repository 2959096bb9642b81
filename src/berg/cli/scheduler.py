"""`berg scheduler`: the scheduler alone, with kube-scheduler's flags."""

from __future__ import annotations

from typing import Any

import click

from berg.cli.feature_gates import feature_gates


@click.command(name="scheduler")
@click.option("--config", "config_file", help="A KubeSchedulerConfiguration (v1) file.")
@click.option("--kubeconfig", help="How to reach the API server; also clientConnection.kubeconfig in --config.")
@click.option("--leader-elect/--no-leader-elect", default=None, help="Schedule only while holding the Lease.")
@click.option("--leader-elect-lease-duration", help="How long others wait before they take over.  [default: 15s]")
@click.option("--leader-elect-renew-deadline", help="How long the leader tries to renew.  [default: 10s]")
@click.option("--leader-elect-retry-period", help="How often it is tried.  [default: 2s]")
@click.option("--leader-elect-resource-name", help="The Lease's name.  [default: kube-scheduler]")
@click.option("--leader-elect-resource-namespace", help="The Lease's namespace.  [default: kube-system]")
@click.option("--bind-address", default="0.0.0.0", show_default=True, help="Where health and metrics are served.")
@click.option("--secure-port", default=10259, show_default=True, help="HTTPS; 0 for none.")
@click.option("--tls-cert-file", default="", help="Its certificate.  [default: one made at start]")
@click.option("--tls-private-key-file", default="", help="The certificate's key.")
@click.option("--kube-api-qps", type=float, help="Requests per second to the API server; 0: no limit.")
@click.option("--kube-api-burst", type=int, help="How many may go beyond that at once.")
@feature_gates
def command(config_file: str | None, kubeconfig: str | None, **flags: Any) -> None:
    """Run the scheduler alone.

    \b
    Example:
      berg scheduler --kubeconfig scheduler.kubeconfig --config scheduler.yaml
    """
    from berg.scheduler.config import ConfigError, SchedulerConfig, duration_s, load

    try:
        config = load(config_file) if config_file else SchedulerConfig()
        election = config.leader_election
        if not config_file:
            election.enabled = True
        for flag, attribute in (
            ("lease_duration", "lease_duration_s"),
            ("renew_deadline", "renew_deadline_s"),
            ("retry_period", "retry_period_s"),
        ):
            if text := flags[f"leader_elect_{flag}"]:
                setattr(election, attribute, duration_s(text))
    except ConfigError as e:
        raise click.ClickException(str(e)) from e
    if flags["leader_elect"] is not None:
        election.enabled = flags["leader_elect"]
    config.feature_gates = flags["feature_gates"]
    election.name = flags["leader_elect_resource_name"] or election.name
    election.namespace = flags["leader_elect_resource_namespace"] or election.namespace
    path = kubeconfig or config.kubeconfig
    if not path:
        raise click.UsageError("--kubeconfig is needed (or clientConnection.kubeconfig in --config)")
    qps = config.client_qps if flags["kube_api_qps"] is None else flags["kube_api_qps"]
    burst = config.client_burst if flags["kube_api_burst"] is None else flags["kube_api_burst"]

    def build() -> list[Any]:
        import os
        import signal

        from berg.client.rest import Client
        from berg.client.serving import Serving
        from berg.scheduler.leader import ElectedScheduler
        from berg.scheduler.metrics import Metrics
        from berg.scheduler.scheduler import Scheduler

        client = Client.from_kubeconfig(path, qps=qps, burst=burst, user_agent="kube-scheduler")
        scheduler: ElectedScheduler | Scheduler
        if election.enabled:
            scheduler = ElectedScheduler(client, config, on_lost=lambda: os.kill(os.getpid(), signal.SIGTERM))
            metrics = scheduler.metrics = Metrics(scheduler.pending, config.feature_gates)
        else:
            scheduler = Scheduler(client, config)
            metrics = scheduler.metrics = Metrics(scheduler.queue.counts, config.feature_gates)
        if not flags["secure_port"]:
            return [_Connection(client), scheduler]
        serving = Serving(
            client,
            "kube-scheduler",
            metrics.text,
            address=flags["bind_address"],
            port=flags["secure_port"],
            certificate=flags["tls_cert_file"],
            key=flags["tls_private_key_file"],
            more={"/metrics/resources": scheduler.pod_resources},
        )
        return [_Connection(client), serving, scheduler]

    from berg.cli.run import run

    run(build)


class _Connection:
    """Closes the client when everything that used it has stopped."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        await self._client.close()
