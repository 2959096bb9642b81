"""The server's certificate: the files that are given, else one that the kubelet makes and signs itself.

Source: cmd/kubelet/app/server.go InitializeTLS.
"""

from __future__ import annotations

from pathlib import Path

from berg.kubelet.config import KubeletConfig


def serving_certificate(config: KubeletConfig, ips: list[str]) -> tuple[str, str]:
    """(certificate file, key file)."""
    if config.tls_cert_file and config.tls_private_key_file:
        return config.tls_cert_file, config.tls_private_key_file
    from berg.machinery import pki
    from berg.machinery.private import write_private

    directory = Path(config.cert_dir or Path(config.root_dir) / "pki")
    certificate, key = directory / "kubelet.crt", directory / "kubelet.key"
    if not (certificate.exists() and key.exists()):
        directory.mkdir(parents=True, exist_ok=True)
        authority = pki.CertificateAuthority.create(f"{config.node_name}-ca")
        pair = authority.issue(config.node_name, names=[config.node_name, *ips], server=True)
        write_private(key, pair.key)
        certificate.write_bytes(pair.certificate)
    return str(certificate), str(key)
