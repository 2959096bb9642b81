"""A pod gets a certificate of a signer that the test plays, and the trust bundle by which its peers know it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from .conftest import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.judge]
BOX = "registry.k8s.io/e2e-test-images/busybox:1.0"
SIGNER = "e2e.example.com/pods"


class Signer:
    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e2e authority")])
        self.begin = datetime.now(UTC).replace(microsecond=0)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.authority = (
            self._builder(self.name, self.key.public_key(), self.begin + timedelta(days=1))
            .add_extension(constraints, critical=True)
            .sign(self.key, SHA256())
        )

    def _builder(self, subject: x509.Name, key: Any, end: datetime) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key)
        builder = builder.not_valid_before(self.begin).not_valid_after(end)
        return builder.serial_number(x509.random_serial_number())

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The status of an issued request."""
        spec = request["spec"]
        csr = x509.load_der_x509_csr(base64.b64decode(spec["stubPKCS10Request"]))
        assert csr.is_signature_valid
        end = self.begin + timedelta(hours=2)
        names = x509.SubjectAlternativeName([x509.DNSName(spec["podName"])])
        leaf = self._builder(x509.Name([]), csr.public_key(), end).add_extension(names, critical=True)
        shown = "%Y-%m-%dT%H:%M:%SZ"
        condition = {"type": "Issued", "status": "True", "reason": "Signed", "message": "by the test"}
        return {
            "conditions": [condition | {"lastTransitionTime": f"{self.begin:{shown}}"}],
            "certificateChain": leaf.sign(self.key, SHA256()).public_bytes(Encoding.PEM).decode(),
            "notBefore": f"{self.begin:{shown}}",
            "notAfter": f"{end:{shown}}",
            "beginRefreshAt": f"{self.begin + timedelta(hours=1):{shown}}",
        }


def test_a_pod_has_the_certificate_that_its_signer_gave(cluster: Cluster, namespace: str) -> None:
    signer = Signer()
    k = ("-n", namespace)
    bundle: dict[str, Any] = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "ClusterTrustBundle",
        "metadata": {"name": f"{SIGNER.replace('/', ':')}:{namespace}"},
        "spec": {"signerName": SIGNER, "trustBundle": signer.authority.public_bytes(Encoding.PEM).decode()},
    }
    certificate = {"signerName": SIGNER, "keyType": "ECDSAP256", "credentialBundlePath": "pod.pem"}
    trust = {"signerName": SIGNER, "labelSelector": {}, "path": "trust.pem"}
    volume = {"name": "v", "projected": {"sources": [{"podCertificate": certificate}, {"clusterTrustBundle": trust}]}}
    show = "cat /v/pod.pem /v/trust.pem; stat -c %a /v/..data/pod.pem; sleep 600"
    container: dict[str, Any] = {"name": "c", "image": BOX, "command": ["sh", "-c", show]}
    container["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "holder"},
        "spec": {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 0},
    }
    try:
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(bundle))
        cluster.kubectl(*k, "create", "-f", "-", stdin=json.dumps(pod))
        request = eventually(lambda: next(iter(cluster.get(*k, "podcertificaterequests")["items"]), None), "a request")
        assert request["spec"]["podName"] == "holder"
        patch = json.dumps({"status": signer.answer(request)})
        name = request["metadata"]["name"]
        cluster.kubectl(*k, "patch", "podcertificaterequest", name, "--subresource=status", "--type=merge", "-p", patch)
        cluster.kubectl(*k, "wait", "pod/holder", "--for=condition=Ready", "--timeout=60s")
        text = eventually(lambda: cluster.out(*k, "logs", "holder"), "the files are shown")
    finally:
        cluster.kubectl("delete", "clustertrustbundle", bundle["metadata"]["name"], check=False)
    leaf, authority = x509.load_pem_x509_certificates(text.encode())
    leaf.verify_directly_issued_by(authority)
    assert authority == signer.authority
    assert "-----BEGIN PRIVATE KEY-----" in text and text.endswith("644")
