"""Keys and certificates for a server that was given none: made once, kept in the data directory."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from berg.apiserver.config import Config

if TYPE_CHECKING:
    from berg.machinery import pki


def ensure(config: Config) -> None:
    """Fills in whatever file the configuration does not name."""
    wanted = (config.tls_cert_file, config.client_ca_file, config.service_account_signing_key_file)
    if all(wanted):
        return
    from berg.machinery import pki
    from berg.machinery.private import write_private

    if not config.cert_dir and not config.data_dir:
        raise ValueError("no certificates given, and no data directory to make them in")
    directory = Path(config.cert_dir) if config.cert_dir else Path(config.data_dir) / "pki"
    directory.mkdir(parents=True, exist_ok=True)
    if not config.client_ca_file:
        config.client_ca_file = str(_authority(directory))
    authority = None
    if (directory / "ca.key").exists():
        authority = pki.CertificateAuthority(pki.KeyPair.read(directory, "ca"))
    if not config.tls_cert_file:
        if authority is None:
            authority = pki.CertificateAuthority(pki.KeyPair.read(_authority(directory).parent, "ca"))
        if not (directory / "apiserver.crt").exists():
            pair = authority.issue("kube-apiserver", names=_names(config), server=True)
            pair.write(directory, "apiserver")
        config.tls_cert_file = str(directory / "apiserver.crt")
        config.tls_private_key_file = str(directory / "apiserver.key")
    if not config.service_account_signing_key_file:
        key_file = directory / "sa.key"
        if not key_file.exists():
            key = pki.new_rsa_key()
            write_private(key_file, pki.key_pem(key))
            (directory / "sa.pub").write_bytes(pki.public_pem(key))
        config.service_account_signing_key_file = str(key_file)
        if not config.service_account_key_file:
            config.service_account_key_file = [str(directory / "sa.pub")]
    if authority is not None:
        _admin(config, directory, authority)


def _authority(directory: Path) -> Path:
    from berg.machinery import pki

    path = directory / "ca.crt"
    if not path.exists():
        pki.CertificateAuthority.create("kubernetes").pair.write(directory, "ca")
    return path


def _admin(config: Config, directory: Path, authority: pki.CertificateAuthority) -> None:
    """An administrator's certificate, so that somebody can come in."""
    if not (directory / "admin.crt").exists():
        authority.issue("kubernetes-admin", ["system:masters"], client=True).write(directory, "admin")
    if not config.kubelet_client_certificate:
        if not (directory / "apiserver-kubelet-client.crt").exists():
            pair = authority.issue("kube-apiserver-kubelet-client", ["system:masters"], client=True)
            pair.write(directory, "apiserver-kubelet-client")
        config.kubelet_client_certificate = str(directory / "apiserver-kubelet-client.crt")
        config.kubelet_client_key = str(directory / "apiserver-kubelet-client.key")


def _names(config: Config) -> list[str]:
    service = next(ipaddress.ip_network(config.service_cluster_ip_range[0]).hosts())
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        str(service),
        socket.gethostname(),
    ]
    return names + [n for n in (config.advertise_address, config.external_hostname) if n]
