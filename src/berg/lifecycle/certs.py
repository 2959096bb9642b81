"""The cluster's certificates, with upstream's names, subjects and files, and a kubeconfig for each component.

What exists and still holds for a month is kept; the rest is made anew, so this runs at every `up`.

Source: kubeadm, "PKI certificates and requirements".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from berg.lifecycle.kubeconfig import client_config, write_config
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec
from berg.machinery import pki
from berg.machinery.pki import CertificateAuthority, KeyPair
from berg.machinery.private import write_private

_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Identity:
    """One certificate: file name, subject, and (for a client of the API) the kubeconfig to write."""

    file: str
    common_name: str
    organizations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    server: bool = False
    client: bool = True
    authority: str = "ca"
    kubeconfig: str = ""


def identities(spec: ClusterSpec) -> list[Identity]:
    services = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    here = ("localhost", "127.0.0.1", "::1")
    found = [
        Identity(
            "apiserver",
            "kube-apiserver",
            names=(*services, spec.api_service, spec.advertise_address, *here),
            server=True,
            client=False,
        ),
        Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",)),
        Identity("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
        Identity("admin", "kubernetes-admin", ("system:masters",), kubeconfig="admin"),
        Identity("controller-manager-serving", "kube-controller-manager", names=here, server=True, client=False),
        Identity("scheduler-serving", "kube-scheduler", names=here, server=True, client=False),
        Identity("controller-manager", "system:kube-controller-manager", kubeconfig="controller-manager"),
        Identity("scheduler", "system:kube-scheduler", kubeconfig="scheduler"),
        Identity("proxy", "system:kube-proxy", kubeconfig="proxy"),
        Identity("dns", "berg:dns", kubeconfig="dns"),
        Identity("network", "berg:network", kubeconfig="network"),
    ]
    for node in spec.nodes:
        found.append(
            Identity(
                f"kubelet-{node.name}", f"system:node:{node.name}", ("system:nodes",), kubeconfig=f"kubelet-{node.name}"
            )
        )
        found.append(
            Identity(
                f"kubelet-{node.name}-serving",
                f"system:node:{node.name}",
                ("system:nodes",),
                names=(node.name, node.address, *here),
                server=True,
                client=False,
            )
        )
    return found


def ensure(layout: Layout, spec: ClusterSpec) -> None:
    """Everything the cluster's processes need to know one another."""
    authorities = {
        name: _authority(layout, name, cn) for name, cn in (("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"))
    }
    if not (layout.pki / "sa.key").exists():
        key = pki.new_rsa_key()
        write_private(layout.pki / "sa.key", pki.key_pem(key))
        (layout.pki / "sa.pub").write_bytes(pki.public_pem(key))
    several = any(n.netns for n in spec.nodes)
    here = f"https://127.0.0.1:{spec.api_port}"
    everywhere = f"https://{spec.advertise_address}:{spec.api_port}" if several else here
    for who in identities(spec):
        pair = _kept(layout, who) or authorities[who.authority].issue(
            who.common_name, who.organizations, names=who.names, server=who.server, client=who.client
        )
        pair.write(layout.pki, who.file)
        if who.kubeconfig:
            server = here if who.kubeconfig == "admin" else everywhere
            config = client_config(spec.context, server, authorities["ca"].certificate, pair)
            write_config(layout.kubeconfig(who.kubeconfig), config)


def _authority(layout: Layout, name: str, common_name: str) -> CertificateAuthority:
    try:
        return CertificateAuthority(KeyPair.read(layout.pki, name))
    except OSError:
        made = CertificateAuthority.create(common_name)
        made.pair.write(layout.pki, name)
        return made


def _kept(layout: Layout, who: Identity) -> KeyPair | None:
    """The pair on disk, when it has the names asked for and a month to live."""
    from cryptography import x509

    try:
        pair = KeyPair.read(layout.pki, who.file)
        certificate = x509.load_pem_x509_certificate(pair.certificate)
    except (OSError, ValueError):
        return None
    if certificate.not_valid_after_utc - datetime.now(UTC) < _RENEW_BEFORE:
        return None
    if who.names:
        wanted = pki.alternative_names(who.names)
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if held != wanted:
            return None
    return pair
