"""Certificates of pods, asked for at a real API server as a node, signed by a signer of the test."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from berg.client.informer import InformerFactory
from berg.kubelet.volumes.certificates import JITTER_S, OVERDUE_S, PodCertificates, clean_chain, key_and_request
from berg.kubelet.volumes.content import VolumeError
from berg.machinery.clock import RealClock, rfc3339
from berg.machinery.resources import resource
from berg.testing import Cluster

from .fakes import Events

REQUESTS = resource("podcertificaterequests.certificates.k8s.io")
SOURCE = {"signerName": "x.org/y", "keyType": "ED25519", "userAnnotations": {"x.org/a": "b"}}


class Later(RealClock):
    """The machine's clock, so many seconds ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


class Rig:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.clock, self.events = cluster, Later(), Events()
        self.informers = InformerFactory(cluster.client_as("system:node:n1", "system:nodes"))
        self.answered: asyncio.Queue[set[str]] = asyncio.Queue()
        self.authority = ec.generate_private_key(ec.SECP256R1())

    async def start(self) -> None:
        client = self.cluster.client
        self.node = await client.create(resource("nodes"), {"metadata": {"name": "n1"}})
        account = {"metadata": {"name": "default", "namespace": "default"}}
        await client.create(resource("serviceaccounts"), account, "default")
        spec = {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "default", "nodeName": "n1"}
        body = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
        self.pod = await client.create(resource("pods"), body, "default")
        as_node = self.cluster.client_as("system:node:n1", "system:nodes")
        self.certificates = PodCertificates(
            as_node,
            self.clock,
            self.informers,
            lambda: self.node,
            self.events,
            self.answered.put_nowait,
        )

    async def get(self) -> tuple[bytes, bytes]:
        return await self.certificates.get(self.pod, "v", 0, SOURCE)

    async def request(self) -> dict[str, Any]:
        """The one that has no answer yet."""
        found = (await self.cluster.client.list(REQUESTS, "default"))["items"]
        (waiting,) = [r for r in found if not (r.get("status") or {}).get("conditions")]
        return waiting

    async def answer(self, kind: str, **status: Any) -> None:
        request = await self.request()
        condition = {"type": kind, "status": "True", "reason": "Because", "message": "so"}
        condition["lastTransitionTime"] = rfc3339(datetime.now(UTC))
        request["status"] = {"conditions": [condition], **status}
        await self.cluster.client.update(REQUESTS, request, subresource="status")
        async with asyncio.timeout(30):
            assert await self.answered.get() == {self.pod["metadata"]["uid"]}

    async def issue(self) -> None:
        request = await self.request()
        csr = x509.load_der_x509_csr(base64.b64decode(request["spec"]["stubPKCS10Request"]))
        assert csr.is_signature_valid and not list(csr.subject)
        begin = datetime.now(UTC).replace(microsecond=0)
        end = begin + timedelta(seconds=request["spec"]["maxExpirationSeconds"])
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).public_key(csr.public_key())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        builder = builder.issuer_name(issuer).not_valid_before(begin).not_valid_after(end)
        leaf = builder.serial_number(x509.random_serial_number()).sign(self.authority, SHA256())
        chain = "from the signer\n" + leaf.public_bytes(Encoding.PEM).decode()
        await self.answer(
            "Issued",
            certificateChain=chain,
            notBefore=rfc3339(begin),
            notAfter=rfc3339(end),
            beginRefreshAt=rfc3339(begin + timedelta(hours=20)),
        )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Cluster(nodes=0, controllers=False, scheduler=False, https=False) as cluster:
        rig = Rig(cluster)
        try:
            await rig.start()
            yield rig
        finally:
            await rig.informers.stop()


async def test_a_certificate_is_asked_for_once_and_used_when_it_is_there(rig: Rig) -> None:
    for _ in range(2):
        with pytest.raises(VolumeError, match="credential bundle is not issued yet"):
            await rig.get()
    request = await rig.request()
    assert request["spec"]["unverifiedUserAnnotations"] == {"x.org/a": "b"}
    assert request["spec"]["nodeUID"] == rig.node["metadata"]["uid"]
    assert request["metadata"]["ownerReferences"][0]["uid"] == rig.pod["metadata"]["uid"]
    assert rig.certificates.states() == {("x.org/y", "not_yet_issued"): 1}
    await rig.issue()
    key, chain = await rig.get()
    assert chain.startswith(b"-----BEGIN CERTIFICATE-----")
    leaf = x509.load_pem_x509_certificate(chain)
    raw = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    assert load_pem_private_key(key, None).public_key().public_bytes(*raw) == leaf.public_key().public_bytes(*raw)
    assert rig.certificates.states() == {("x.org/y", "fresh"): 1}


async def test_it_is_renewed_in_time_and_the_old_one_is_good_until_then(rig: Rig) -> None:
    with pytest.raises(VolumeError):
        await rig.get()
    await rig.issue()
    first = await rig.get()
    uid = rig.pod["metadata"]["uid"]
    due = rig.certificates.next_renewal(uid)
    begin = (datetime.now(UTC) + timedelta(hours=20)).timestamp()
    assert due is not None and begin - 60 < due < begin + JITTER_S + 60
    rig.clock.ahead = 20 * 3600 + JITTER_S + 60
    assert await rig.get() == first
    await rig.request()
    rig.clock.ahead += OVERDUE_S
    assert await rig.get() == first
    assert rig.events.reasons == ["CertificateOverdueForRefresh"]
    assert rig.certificates.states() == {("x.org/y", "overdue_for_refresh"): 1}
    await rig.issue()
    assert await rig.get() != first


async def test_a_refusal_is_for_good(rig: Rig) -> None:
    with pytest.raises(VolumeError):
        await rig.get()
    name = (await rig.request())["metadata"]["name"]
    await rig.answer("Denied")
    for _ in range(2):
        with pytest.raises(VolumeError, match='was permanently denied: reason="Because" message="so"'):
            await rig.get()
    text = f'PodCertificateRequest default/{name} was denied, reason="Because", message="so"'
    assert rig.events == [("Warning", "Denied", text)]
    assert len((await rig.cluster.client.list(REQUESTS, "default"))["items"]) == 1
    assert rig.certificates.next_renewal(rig.pod["metadata"]["uid"]) is None
    rig.certificates.forget(rig.pod["metadata"]["uid"])
    assert not rig.certificates.states()


@pytest.mark.parametrize("kind", ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072"])
def test_keys(kind: str) -> None:
    key, request = key_and_request(kind)
    csr = x509.load_der_x509_csr(request)
    raw = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    assert csr.is_signature_valid
    assert csr.public_key().public_bytes(*raw) == load_pem_private_key(key, None).public_key().public_bytes(*raw)
    with pytest.raises(ValueError, match='unknown key type "DSA"'):
        key_and_request("DSA")


def test_only_certificates_are_left_of_a_chain() -> None:
    body = base64.b64encode(bytes(range(100))).decode()
    text = f"x\n-----BEGIN CERTIFICATE-----\nHead: y\n\n{body}\n-----END CERTIFICATE-----\nz"
    lines = ["-----BEGIN CERTIFICATE-----", body[:64], body[64:128], body[128:], "-----END CERTIFICATE-----", ""]
    assert clean_chain(text).decode().splitlines() == [line for line in lines if line]
