"""`berg etcd`: the store as an etcd server; `berg etcd restore`: a store out of an etcd snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_WITHOUT_PEERS = (
    "listen-peer-urls",
    "initial-cluster-state",
    "initial-cluster-token",
    "peer-cert-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "peer-client-cert-auth",
    "snapshot-count",
    "heartbeat-interval",
    "election-timeout",
    "strict-reconfig-check",
    "pre-vote",
    "initial-election-tick-advance",
    "max-snapshots",
    "max-wals",
    "backend-batch-interval",
    "backend-batch-limit",
    "backend-bbolt-freelist-type",
    "compact-hash-check-enabled",
    "experimental-compact-hash-check-enabled",
    "warning-apply-duration",
    "warning-unary-request-duration",
    "wal-dir",
    "experimental-initial-corrupt-check",
    "feature-gates",
    "logger",
    "log-level",
    "log-format",
    "log-outputs",
)
"""etcd's flags that say nothing to a cluster of one; taken, so that a manifest made for etcd works as it is"""


def _switch(name: str, default: bool, text: str) -> Callable[[Any], Any]:
    """A flag as Go has it: `--name`, `--name=true`, `--name=false`."""
    return click.option(f"--{name}", type=bool, is_flag=False, flag_value=True, default=default, help=text)


def _taken(command: Callable[..., None]) -> Callable[..., None]:
    for name in _WITHOUT_PEERS:
        option = click.option(
            f"--{name}", is_flag=False, flag_value="true", default="", hidden=True, expose_value=False
        )
        command = option(command)
    return command


@click.group(name="etcd", invoke_without_command=True, context_settings={"auto_envvar_prefix": "ETCD"})
@click.option("--name", default="default", show_default=True, help="The member's name.")
@click.option("--data-dir", default="", help="Where the data is.  [default: NAME.etcd]")
@click.option(
    "--listen-client-urls", default="http://localhost:2379", show_default=True, help="Where to serve, comma-separated."
)
@click.option("--advertise-client-urls", default="", help="What clients are told to use.  [default: as listened]")
@click.option("--listen-metrics-urls", default="", help="Where /health and /metrics are served, too.")
@click.option("--initial-advertise-peer-urls", default="", help="What is told of peers; there are none.")
@click.option("--initial-cluster", default="", help="Refused with more than one member.")
@click.option("--cert-file", default="", help="The server's certificate.")
@click.option("--key-file", default="", help="Its key.")
@click.option("--trusted-ca-file", default="", help="Who signs client certificates.")
@_switch("client-cert-auth", False, "Refuse clients without a certificate.")
@click.option("--quota-backend-bytes", default=0, help="The largest the store may grow; 0: 2 GiB, below 0: no limit.")
@click.option("--max-txn-ops", default=128, show_default=True, help="Operations in one transaction.")
@click.option("--max-request-bytes", default=1536 * 1024, show_default=True, help="Size of one request.")
@click.option("--auto-compaction-mode", default="periodic", show_default=True, help="periodic or revision.")
@click.option("--auto-compaction-retention", default="0", show_default=True, help="Hours, a duration, or revisions.")
@click.option(
    "--watch-progress-notify-interval",
    "--experimental-watch-progress-notify-interval",
    default="10m",
    show_default=True,
    help="How often idle watches hear where they stand.",
)
@click.option(
    "--auth-token",
    default="simple",
    show_default=True,
    help="simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=RS512,ttl=10m.",
)
@click.option("--auth-token-ttl", default=300, show_default=True, help="Seconds an unused simple token lives.")
@click.option("--bcrypt-cost", default=10, show_default=True, help="How hard a password's hash is to compute, 4 to 31.")
@_switch("enable-v2", True, "Serve the v2 API.  [default: true]")
@_taken
def command(
    name: str,
    data_dir: str,
    listen_client_urls: str,
    advertise_client_urls: str,
    listen_metrics_urls: str,
    initial_advertise_peer_urls: str,
    initial_cluster: str,
    quota_backend_bytes: int,
    trusted_ca_file: str,
    watch_progress_notify_interval: str,
    auth_token_ttl: int,
    **flags: Any,
) -> None:
    """Run the embedded store as an etcd server (v3 gRPC and JSON, v2).

    \b
    Examples:
      berg etcd --data-dir /var/lib/etcd
      etcdctl --endpoints localhost:2379 put key value
      etcdctl snapshot save backup.db
      berg etcd restore backup.db --data-dir restored
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from berg.cli.run import run
    from berg.etcd.server import Config, EtcdServer, seconds
    from berg.storage.interface import StoreError

    if "," in initial_cluster:
        raise click.ClickException("berg etcd is a cluster of one; move to etcd by a snapshot for more members")
    quota = 2 << 30 if quota_backend_bytes == 0 else max(0, quota_backend_bytes)
    config = Config(
        name=name,
        data_dir=data_dir or f"{name}.etcd",
        listen_client_urls=_urls(listen_client_urls),
        advertise_client_urls=_urls(advertise_client_urls),
        listen_metrics_urls=_urls(listen_metrics_urls),
        initial_advertise_peer_urls=_urls(initial_advertise_peer_urls),
        quota_backend_bytes=quota,
        trusted_ca_file=trusted_ca_file,
        auth_token_ttl_s=auth_token_ttl,
        **flags,
    )
    try:
        config.watch_progress_notify_interval_s = seconds(watch_progress_notify_interval)
        run(lambda: [EtcdServer(config)])
    except (StoreError, OSError, ValueError) as e:
        raise click.ClickException(str(e)) from None


def _urls(text: str) -> list[str]:
    return [url for url in text.split(",") if url]


@command.command(name="restore")
@click.argument("snapshot", type=click.Path(exists=True, dir_okay=False))
@click.option("--data-dir", default="default.etcd", show_default=True, help="Where the new store goes.")
@click.option("--skip-hash-check", is_flag=True, help="For a database file that was copied, not saved.")
def restore(snapshot: str, data_dir: str, skip_hash_check: bool) -> None:
    """Make a store out of a snapshot of any etcd."""
    from pathlib import Path

    from berg.etcd.snapshot import BadSnapshot, restore_to

    target = Path(data_dir) / "store.db"
    try:
        keys, revision = restore_to(Path(snapshot), target, check_hash=not skip_hash_check)
    except FileExistsError:
        raise click.ClickException(f"{target} exists already; choose another --data-dir") from None
    except BadSnapshot as e:
        raise click.ClickException(f"{snapshot}: {e}") from None
    click.echo(f"{keys} keys at revision {revision} restored to {target}")
