"""A pod's /etc/hosts: managed by the kubelet, mounted into every container that does not bring its own.

Source: pkg/kubelet/kubelet_pods.go nodeHostsFileContent, managedHostsFileContent.
"""

from __future__ import annotations

from pathlib import Path

from berg.kubelet import dns
from berg.kubelet import pod as p
from berg.machinery.status import Obj

HEADER = "# Kubernetes-managed hosts file.\n"
HEADER_HOST_NETWORK = "# Kubernetes-managed hosts file (host network).\n"
MANAGED = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def content(pod: Obj, ips: list[str], cluster_domain: str, node_hosts: Path = Path("/etc/hosts")) -> str:
    if p.host_network(pod):
        try:
            text = HEADER_HOST_NETWORK + node_hosts.read_text()
        except FileNotFoundError:
            text = HEADER_HOST_NETWORK
    else:
        host, domain = dns.hostname_and_domain(pod, cluster_domain)
        names = f"{host}.{domain}\t{host}" if domain else host
        text = HEADER + MANAGED + "".join(f"{ip}\t{names}\n" for ip in ips)
    aliases = pod["spec"].get("hostAliases") or []
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{a['ip']}\t" + "\t".join(a.get("hostnames") or []) + "\n" for a in aliases)
    return text


def wanted(pod: Obj, c: Obj, ips: list[str]) -> bool:
    """Not over a file that the container mounts there itself, and not before there is an address."""
    mounted = any(m["mountPath"].rstrip("/") == "/etc/hosts" for m in c.get("volumeMounts") or ())
    return not mounted and (bool(ips) or p.host_network(pod))
