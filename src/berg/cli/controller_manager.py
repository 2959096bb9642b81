"""`berg controller-manager`: the controllers alone, with upstream's flag names.

A flag is a field of `controllers.config.Config`; durations lose their `_s`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import click

from berg.cli import feature_gates
from berg.controllers.config import Config
from berg.controllers.manager import CONTROLLERS, DISABLED_BY_DEFAULT, UnknownController, chosen

HIDDEN = {"root_ca_data", "concurrent_syncs", "leader_elect", "secure_port", "feature_gates"}
NAMES = {
    "legacy_service_account_token_clean_up_period_s": "legacy-service-account-token-clean-up-period",
    "resource_quota_sync_period_s": "resource-quota-sync-period",
}
CONCURRENT = {
    "concurrent-deployment-syncs": "deployment-controller",
    "concurrent-replicaset-syncs": "replicaset-controller",
    "concurrent-rc-syncs": "replicationcontroller-controller",
    "concurrent-statefulset-syncs": "statefulset-controller",
    "concurrent-daemonset-syncs": "daemonset-controller",
    "concurrent-job-syncs": "job-controller",
    "concurrent-cron-job-syncs": "cronjob-controller",
    "concurrent-endpoint-syncs": "endpoints-controller",
    "concurrent-service-endpoint-syncs": "endpointslice-controller",
    "concurrent-namespace-syncs": "namespace-controller",
    "concurrent-gc-syncs": "garbage-collector-controller",
    "concurrent-resource-quota-syncs": "resourcequota-controller",
    "concurrent-ttl-after-finished-syncs": "ttl-after-finished-controller",
    "concurrent-horizontal-pod-autoscaler-syncs": "horizontal-pod-autoscaler-controller",
}
NO_EFFECT = (
    "authentication-kubeconfig",
    "authentication-skip-lookup",
    "authorization-kubeconfig",
    "cert-dir",
    "client-ca-file",
    "cloud-config",
    "cloud-provider",
    "configure-cloud-routes",
    "enable-dynamic-provisioning",
    "enable-hostpath-provisioner",
    "endpoint-updates-batch-period",
    "endpointslice-updates-batch-period",
    "external-cloud-volume-plugin",
    "flex-volume-plugin-dir",
    "kube-api-content-type",
    "log-flush-frequency",
    "logging-format",
    "min-resync-period",
    "mirroring-concurrent-service-endpoint-syncs",
    "profiling",
    "requestheader-client-ca-file",
    "requestheader-allowed-names",
    "tls-cipher-suites",
    "tls-min-version",
    "vmodule",
)
"""upstream's flags that nothing here reads: taken, so that its manifests start, and said aloud"""
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Duration(click.ParamType):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s))+", text):
            self.fail(f'"{text}" is no duration', param, ctx)
        return sum(float(n) * UNITS[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)(h|ms|m|s)", text))


def _syncs(controller: str) -> str:
    return f"syncs_{controller.replace('-', '_')}"


def _unread(flag: str) -> str:
    return f"unread_{flag.replace('-', '_')}"


def _switch(flag: str, name: str, default: bool | None, help: str = "") -> click.Option:
    """`--flag`, `--flag=true`, `--flag=false`, as Go's."""
    return click.Option(
        [f"--{flag}", name], type=click.BOOL, is_flag=False, flag_value="true", default=default, help=help
    )


def _options() -> list[click.Parameter]:
    found: list[click.Parameter] = [
        click.Option(["--kubeconfig"], help="How to reach the API server."),
        click.Option(["--master"], help="The API server's address, over the kubeconfig's."),
        _switch("leader-elect", "leader_elect", True, "Act only while holding the Lease."),
        click.Option(["--secure-port"], type=int, default=10257, help="Health and metrics; 0: nowhere."),
        click.Option(["--kube-api-qps"], type=float, default=0.0, help="Requests a second; 0: no limit."),
        click.Option(["--kube-api-burst"], type=int, default=0, help="How many may go beyond that at once."),
        click.Option(["-v", "--v", "verbosity"], type=int, default=0, help="Log more."),
        feature_gates.option(),
    ]
    for field in dataclasses.fields(Config):
        if field.name in HIDDEN:
            continue
        flag = NAMES.get(field.name) or field.name.removesuffix("_s").replace("_", "-")
        kind: Any = str
        if field.name.endswith("_s"):
            kind = Duration()
        elif str(field.type).startswith("bool"):
            found.append(_switch(flag, field.name, None))
            continue
        elif field.type in ("int", "float"):
            kind = int if field.type == "int" else float
        text = None
        if field.name == "controllers":
            text = f"`*`, `foo` or `-foo`, separated by commas. All: {', '.join(sorted(CONTROLLERS))}. "
            text += f"Off by default: {', '.join(sorted(DISABLED_BY_DEFAULT))}."
        found.append(click.Option([f"--{flag}", field.name], type=kind, default=None, help=text))
    for flag in NO_EFFECT:
        found.append(click.Option([f"--{flag}", _unread(flag)], is_flag=False, flag_value="true", hidden=True))
    for flag, controller in CONCURRENT.items():
        found.append(click.Option([f"--{flag}", _syncs(controller)], type=int, default=None))
    return found


def run(**given: Any) -> None:
    from berg.client.kubeconfig import KubeconfigError, client_from

    kubeconfig, verbosity = given.pop("kubeconfig"), given.pop("verbosity")
    qps, burst, master = given.pop("kube_api_qps"), given.pop("kube_api_burst"), given.pop("master")
    syncs = {c: n for c in CONCURRENT.values() if (n := given.pop(_syncs(c))) is not None}
    for flag in NO_EFFECT:
        if given.pop(_unread(flag)) is not None:
            click.echo(f"--{flag} has no effect here", err=True)
    values = {k: v for k, v in given.items() if v is not None}
    if "controllers" in values:
        values["controllers"] = [c for c in values["controllers"].split(",") if c]
    config = Config(**values, concurrent_syncs=syncs)
    try:
        chosen(config.controllers)
    except UnknownController as e:
        raise click.UsageError(str(e)) from None
    if not kubeconfig:
        raise click.UsageError("--kubeconfig is needed")
    if config.root_ca_file == "":
        config.root_ca_data = _authority(kubeconfig)

    def build() -> list[Any]:
        import logging
        import os
        import signal

        from berg.controllers.manager import ControllerManager

        if verbosity >= 4:
            logging.getLogger("berg").setLevel(logging.DEBUG)
        try:
            client = client_from(
                kubeconfig, server=master or "", qps=qps, burst=burst, user_agent="kube-controller-manager"
            )
        except KubeconfigError as e:
            raise click.ClickException(str(e)) from None
        # Another one may act as soon as the lease is lost: this process must be gone by then.
        return [ControllerManager(client, config, on_lost=lambda: os.kill(os.getpid(), signal.SIGTERM))]

    from berg.cli.run import run as serve

    serve(build)


def _authority(kubeconfig: str) -> bytes:
    """Without --root-ca-file, pods are told what this process itself trusts."""
    from berg.client.kubeconfig import Kubeconfig, KubeconfigError

    try:
        return Kubeconfig.load(kubeconfig).endpoint().ca_data
    except KubeconfigError as e:
        raise click.ClickException(str(e)) from None


command = click.Command("controller-manager", params=_options(), callback=run, help="Run the controllers alone.")
