"""`berg kubelet`: the kubelet alone, with upstream's flag names and configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from berg.cli.feature_gates import feature_gates as gates_option

if TYPE_CHECKING:
    from berg.client.rest import Client
    from berg.kubelet.config import KubeletConfig

# flag → (attribute, help); each overrides the configuration file when it is given.
FLAGS: dict[str, tuple[str, str]] = {
    "hostname-override": ("node_name", "The node's name.  [default: the host's]"),
    "node-ip": ("node_ip", "The node's address; two with a comma for dual-stack."),
    "root-dir": ("root_dir", "Where pods' files are kept."),
    "pod-logs-dir": ("pod_logs_dir", "Where the runtime writes containers' logs."),
    "cert-dir": ("cert_dir", "Where the serving certificate is kept when none is given."),
    "provider-id": ("provider_id", "What identifies the node at its provider."),
    "address": ("address", "Where the server listens."),
    "tls-cert-file": ("tls_cert_file", "The server's certificate."),
    "tls-private-key-file": ("tls_private_key_file", "The key of the server's certificate."),
    "client-ca-file": ("client_ca_file", "Client certificates signed by it are accepted."),
    "authorization-mode": ("authorization_mode", "Webhook or AlwaysAllow."),
    "pod-manifest-path": ("static_pod_path", "A file or directory with static pods."),
    "cluster-domain": ("cluster_domain", "The domain of this cluster."),
    "resolv-conf": ("resolv_conf", "What containers' resolv.conf is made from."),
    "cgroup-driver": ("cgroup_driver", "cgroupfs or systemd."),
    "cgroup-root": ("cgroup_root", "The cgroup below which pods live."),
    "healthz-bind-address": ("healthz_bind_address", "Where health is served in plain text."),
}
NUMBERS: dict[str, tuple[str, str]] = {
    "port": ("port", "The server's port."),
    "max-pods": ("max_pods", "How many pods can run here."),
    "pod-max-pids": ("pod_pids_limit", "Processes for each pod; -1 for no limit."),
    "healthz-port": ("healthz_port", "0 for none."),
    "image-gc-high-threshold": ("image_gc_high_threshold_percent", "Disk use that starts image collection."),
    "image-gc-low-threshold": ("image_gc_low_threshold_percent", "Disk use that image collection frees down to."),
    "container-log-max-files": ("container_log_max_files", "Log files for each container."),
}
BOOLEANS: dict[str, tuple[str, str]] = {
    "anonymous-auth": ("anonymous_auth", "Serve requests without credentials."),
    "authentication-token-webhook": ("webhook_authentication", "Ask the API server about bearer tokens."),
    "cgroups-per-qos": ("cgroups_per_qos", "Make cgroups for pods and their classes."),
    "cpu-cfs-quota": ("cpu_cfs_quota", "Enforce CPU limits."),
    "fail-swap-on": ("fail_swap_on", "Refuse to start with swap."),
    "register-node": ("register_node", "Make this node known to the API."),
    "seccomp-default": ("seccomp_default", "RuntimeDefault for pods that say nothing."),
    "serialize-image-pulls": ("serialize_image_pulls", "One image pull at a time."),
}
PAIRS: dict[str, tuple[str, str]] = {
    "node-labels": ("node_labels", "Labels for the node: a=b,c=d."),
    "system-reserved": ("system_reserved", "Resources kept for the system: cpu=200m,memory=1Gi."),
    "kube-reserved": ("kube_reserved", "Resources kept for Kubernetes' own parts."),
}


def _options(command: Any) -> Any:
    for table, kind in ((FLAGS, str), (NUMBERS, int), (PAIRS, str)):
        for flag, (attribute, help) in reversed(table.items()):
            command = click.option(f"--{flag}", attribute, type=kind, default=None, help=help)(command)
    for flag, (attribute, help) in reversed(BOOLEANS.items()):
        command = click.option(f"--{flag}", attribute, type=click.BOOL, default=None, help=help)(command)
    return command


@click.command(name="kubelet")
@click.option("--kubeconfig", required=True, help="How to reach the API server.")
@click.option("--config", "config_file", default="", help="A KubeletConfiguration (v1beta1) file.")
@click.option(
    "--container-runtime-endpoint",
    default="unix:///run/containerd/containerd.sock",
    show_default=True,
    help="The runtime's socket; `berg` for Berg's own runtime in process.",
)
@click.option("--cluster-dns", default=None, help="DNS servers of the cluster, with commas.")
@gates_option
@click.option("--register-with-taints", default=None, help="Taints to register with: key=value:effect, with commas.")
@_options
def command(
    kubeconfig: str,
    config_file: str,
    container_runtime_endpoint: str,
    cluster_dns: str | None,
    register_with_taints: str | None,
    feature_gates: dict[str, bool],
    **flags: Any,
) -> None:
    """Run the kubelet alone.

    \b
    Example:
      berg kubelet --kubeconfig /etc/kubernetes/kubelet.conf --config /var/lib/kubelet/config.yaml
    """
    from berg.cli.run import run
    from berg.client.rest import Client
    from berg.kubelet.config import KubeletConfig, load
    from berg.kubelet.kubelet import Kubelet
    from berg.machinery.features import FeatureGates

    config = KubeletConfig()
    endpoint = container_runtime_endpoint
    try:
        if config_file:
            load(config_file, config)
            endpoint = config.other.get("containerRuntimeEndpoint") or endpoint
        _apply(config, flags, cluster_dns, register_with_taints)
        config.feature_gates = {**config.feature_gates, **feature_gates}
        FeatureGates(config.feature_gates)
    except (OSError, ValueError) as e:
        raise click.ClickException(str(e)) from e

    def build() -> list[Any]:
        runtime, parts = _runtime(endpoint)
        client = Client.from_kubeconfig(kubeconfig)
        return [_Connection(client), *parts, Kubelet(client, runtime, config)]

    run(build)


class _Connection:
    """Stopped last, after the kubelet has said its last word."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        await self._client.close()


def _apply(config: KubeletConfig, flags: dict[str, Any], cluster_dns: str | None, taints: str | None) -> None:
    pairs = {attribute for attribute, _ in PAIRS.values()}
    for attribute, value in flags.items():
        if value is not None:
            setattr(config, attribute, _pairs(value) if attribute in pairs else value)
    if cluster_dns is not None:
        config.cluster_dns = [x for x in cluster_dns.split(",") if x]
    if taints is not None:
        config.register_with_taints = [_taint(t) for t in taints.split(",") if t]


def _pairs(text: str) -> dict[str, str]:
    found = dict(part.partition("=")[::2] for part in text.split(",") if part)
    return {k.strip(): v.strip() for k, v in found.items()}


def _taint(text: str) -> dict[str, str]:
    head, colon, effect = text.rpartition(":")
    if not colon or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise ValueError(f"invalid taint spec: {text}")
    key, _, value = head.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def _runtime(endpoint: str) -> tuple[Any, list[Any]]:
    """(the runtime, what has to be started before the kubelet)."""
    if endpoint == "berg":
        raise click.ClickException(
            "Berg's own runtime alone needs a pod network; use `berg up`, or a runtime's socket."
        )
    from berg.runtime.remote import RemoteRuntime

    remote = RemoteRuntime(endpoint.removeprefix("unix://"))  # type: ignore[abstract]  # made at run time
    return remote, [remote]
