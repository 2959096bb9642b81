"""A pod's resolv.conf, by its dnsPolicy and dnsConfig; and its host name.

Source: pkg/kubelet/network/dns/dns.go; kubelet_pods.go GeneratePodHostNameAndDomain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from berg.kubelet import pod as p
from berg.machinery.status import Obj

MAX_NAMESERVERS = 3
MAX_SEARCH_PATHS = 32
MAX_SEARCH_CHARACTERS = 2048
MAX_HOST_NAME = 63


@dataclass(slots=True)
class DNSConfig:
    servers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def resolv_conf(self) -> str:
        lines = []
        if self.searches:
            lines.append("search " + " ".join(self.searches))
        lines += [f"nameserver {s}" for s in self.servers]
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "".join(line + "\n" for line in lines)


def parse_resolv_conf(text: str) -> DNSConfig:
    """The last `search` and `options` count, as the resolver has it."""
    config = DNSConfig()
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0].startswith(("#", ";")):
            continue
        if fields[0] == "nameserver" and len(fields) > 1:
            config.servers.append(fields[1])
        elif fields[0] == "search":
            config.searches = [s if s == "." else s.rstrip(".") for s in fields[1:]]
        elif fields[0] == "options":
            config.options = fields[1:]
    return config


class Configurer:
    def __init__(
        self,
        cluster_dns: list[str],
        cluster_domain: str,
        resolv_conf: str,
        event: Callable[[Obj, str, str, str], None] = lambda *_: None,
    ) -> None:
        self._cluster_dns = cluster_dns
        self._cluster_domain = cluster_domain
        self._resolv_conf = resolv_conf
        self._event = event

    def _host(self) -> DNSConfig:
        if not self._resolv_conf:
            return DNSConfig()
        try:
            return parse_resolv_conf(Path(self._resolv_conf).read_text())
        except FileNotFoundError:
            return DNSConfig()

    def for_pod(self, pod: Obj) -> DNSConfig:
        policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
        if policy == "ClusterFirst" and p.host_network(pod):
            policy = "Default"
        elif policy == "ClusterFirstWithHostNet":
            policy = "ClusterFirst"
        if policy == "None":
            config = DNSConfig()
        elif policy == "ClusterFirst" and self._cluster_dns:
            config = DNSConfig(list(self._cluster_dns), self._cluster_searches(pod), ["ndots:5"])
            config.searches = list(dict.fromkeys(config.searches + self._host().searches))
        else:
            if policy == "ClusterFirst":
                self._event(
                    pod,
                    "Warning",
                    "MissingClusterDNS",
                    f'pod: "{p.show(pod)}". kubelet does not have ClusterDNS IP configured and cannot create Pod using '
                    f'"{policy}" policy. Falling back to "Default" policy.',
                )
            config = self._host()
            if not config.servers and not self._resolv_conf:
                config.servers, config.searches = ["127.0.0.1"], ["."]
        if (extra := pod["spec"].get("dnsConfig")) is not None:
            _merge(config, extra)
        return self._fit(pod, config)

    def _cluster_searches(self, pod: Obj) -> list[str]:
        domain = self._cluster_domain
        return [f"{p.namespace(pod)}.svc.{domain}", f"svc.{domain}", domain] if domain else []

    def _fit(self, pod: Obj, config: DNSConfig) -> DNSConfig:
        """Within what resolvers take; what does not fit is left out, and said."""
        if len(config.servers) > MAX_NAMESERVERS:
            config.servers = config.servers[:MAX_NAMESERVERS]
            self._event(
                pod,
                "Warning",
                "DNSConfigForming",
                "Nameserver limits were exceeded, some nameservers have been omitted, "
                f"the applied nameserver line is: {' '.join(config.servers)}",
            )
        kept = config.searches[:MAX_SEARCH_PATHS]
        while len(" ".join(kept)) > MAX_SEARCH_CHARACTERS:
            kept = kept[:-1]
        if kept != config.searches:
            config.searches = kept
            self._event(
                pod,
                "Warning",
                "DNSConfigForming",
                "Search Line limits were exceeded, some search paths have been omitted, "
                f"the applied search line is: {' '.join(kept)}",
            )
        return config


def _merge(config: DNSConfig, extra: Obj) -> None:
    config.servers = list(dict.fromkeys(config.servers + (extra.get("nameservers") or [])))
    config.searches = list(dict.fromkeys(config.searches + (extra.get("searches") or [])))
    options = dict(o.partition(":")[::2] for o in config.options)
    for option in extra.get("options") or ():
        options[option["name"]] = option.get("value") or ""
    config.options = [f"{k}:{v}" if v else k for k, v in options.items()]


def hostname_and_domain(pod: Obj, cluster_domain: str) -> tuple[str, str]:
    """(host name, its domain or nothing). Source: KEP-4762 (hostnameOverride)."""
    spec = pod["spec"]
    if override := spec.get("hostnameOverride"):
        return override, ""
    host = spec.get("hostname") or p.name(pod)
    if len(host) > MAX_HOST_NAME:
        host = host[:MAX_HOST_NAME].rstrip("-.")
    domain = ""
    if spec.get("subdomain"):
        domain = f"{spec['subdomain']}.{p.namespace(pod)}.svc.{cluster_domain}".rstrip(".")
    return host, domain


def sandbox_hostname(pod: Obj, cluster_domain: str) -> str:
    """What `hostname` says inside: the full name when the pod asks for it."""
    host, domain = hostname_and_domain(pod, cluster_domain)
    if pod["spec"].get("setHostnameAsFQDN") and domain:
        full = f"{host}.{domain}"
        if len(full) > 64:
            raise ValueError(
                f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
                f"(64 characters is the max, {len(full)} characters requested)"
            )
        return full
    return host
