"""Certificates: approving, signing and attesting need a permission on the signer; nobody asks for system:masters.

Source: kubernetes plugin/pkg/admission/certificates.
"""

from __future__ import annotations

import base64
import binascii

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery.resources import Resource

_REQUESTS = "certificatesigningrequests.certificates.k8s.io"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
SIGNERS = Resource("certificates.k8s.io", "v1", "signers", "Signer", False)
"""what permissions are given on; there are no such objects"""


class _SignerPlugin(Plugin):
    validating = True

    async def _may(self, a: Attributes, verb: str, signer: str) -> bool:
        """On the signer, or on all signers of its domain (`example.com/*`)."""
        domain = signer.split("/")[0]
        return await self.api.authorize(a.user, verb, SIGNERS, "", signer) or await self.api.authorize(
            a.user, verb, SIGNERS, "", f"{domain}/*"
        )


class CertificateApproval(_SignerPlugin):
    name = "CertificateApproval"
    operations = frozenset({UPDATE})
    resources = frozenset({_REQUESTS})
    subresources = frozenset({"approval"})

    async def validate(self, a: Attributes) -> None:
        signer = ((a.old or {}).get("spec") or {}).get("signerName") or ""
        if not await self._may(a, "approve", signer):
            raise forbidden(a, f'user not permitted to approve requests with signerName "{signer}"')


class CertificateSigning(_SignerPlugin):
    name = "CertificateSigning"
    operations = frozenset({UPDATE})
    resources = frozenset({_REQUESTS})
    subresources = frozenset({"status"})

    async def validate(self, a: Attributes) -> None:
        old, new = (a.old or {}).get("status") or {}, (a.obj or {}).get("status") or {}
        if all((old.get(k) or None) == (new.get(k) or None) for k in ("certificate", "conditions")):
            return
        signer = ((a.old or {}).get("spec") or {}).get("signerName") or ""
        if not await self._may(a, "sign", signer):
            raise forbidden(a, f'user not permitted to sign requests with signerName "{signer}"')


class ClusterTrustBundleAttest(_SignerPlugin):
    name = "ClusterTrustBundleAttest"
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"clustertrustbundles.certificates.k8s.io"})
    subresources = None

    async def validate(self, a: Attributes) -> None:
        signer = ((a.obj or {}).get("spec") or {}).get("signerName")
        if not signer or (a.operation == UPDATE and (a.obj or {}).get("spec") == (a.old or {}).get("spec")):
            return
        if not await self._may(a, "attest", signer):
            raise forbidden(a, f'user not permitted to attest for signerName "{signer}"')


class CertificateSubjectRestriction(Plugin):
    name = "CertificateSubjectRestriction"
    validating = True
    operations = frozenset({CREATE})
    resources = frozenset({_REQUESTS})

    async def validate(self, a: Attributes) -> None:
        spec = (a.obj or {}).get("spec") or {}
        if spec.get("signerName") != CLIENT_SIGNER:
            return
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        try:
            request = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
        except (ValueError, binascii.Error) as e:
            raise forbidden(a, f"failed to parse CSR: {e}") from None
        groups = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if any(g.value == "system:masters" for g in groups):
            raise forbidden(a, f"use of {CLIENT_SIGNER} signer with system:masters group is not allowed")
