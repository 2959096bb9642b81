"""Keys and certificates for test clusters: made once in a process, written out for each cluster.

They secure nothing but loopback connections of a test, so clusters of one process may share them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


@cache
def _made() -> dict[str, bytes]:
    from berg.machinery import pki

    authority = pki.CertificateAuthority.create("kubernetes")
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
    ]
    server = authority.issue("kube-apiserver", names=names, server=True)
    admin = authority.issue("kubernetes-admin", ["system:masters"], client=True)
    kubelet = authority.issue("kube-apiserver-kubelet-client", ["system:masters"], client=True)
    key = pki.new_key()  # ECDSA: an RSA key takes longer to make and load than all the rest
    files = {"ca": authority.pair, "apiserver": server, "admin": admin, "apiserver-kubelet-client": kubelet}
    found = {f"{name}.crt": pair.certificate for name, pair in files.items()}
    found |= {f"{name}.key": pair.key for name, pair in files.items()}
    return {**found, "sa.key": pki.key_pem(key), "sa.pub": pki.public_pem(key)}


def write(directory: Path) -> dict[str, Any]:
    """Writes the files; answers the fields of the API server's Config that name them."""
    for name, data in _made().items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)

    def at(name: str) -> str:
        return str(directory / name)

    return {
        "tls_cert_file": at("apiserver.crt"),
        "tls_private_key_file": at("apiserver.key"),
        "client_ca_file": at("ca.crt"),
        "service_account_signing_key_file": at("sa.key"),
        "service_account_key_file": [at("sa.pub")],
        "kubelet_certificate_authority": at("ca.crt"),
        "kubelet_client_certificate": at("apiserver-kubelet-client.crt"),
        "kubelet_client_key": at("apiserver-kubelet-client.key"),
    }


def kubeconfig(directory: Path, url: str) -> Path:
    """A kubeconfig of the administrator, everything in it, in `directory`."""
    import base64
    import json

    def data(name: str) -> str:
        return base64.b64encode(_made()[name]).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "berg-test", "cluster": {"server": url, "certificate-authority-data": data("ca.crt")}}],
        "users": [
            {
                "name": "admin",
                "user": {"client-certificate-data": data("admin.crt"), "client-key-data": data("admin.key")},
            }
        ],
        "contexts": [{"name": "berg-test", "context": {"cluster": "berg-test", "user": "admin"}}],
        "current-context": "berg-test",
    }
    path = directory / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path
