"""Certificates of pods for projected volumes: a key that never leaves the node, a request, the signer's answer.

    nothing ──ask──► asked ──issued──► fresh ──beginRefreshAt──► asked again, the old one still good ──► fresh …
                       └── denied or failed: for good

One request is under way for each source of a volume. An answer wakes the pod, whose volume is then written anew.
Nothing is kept on disk but the volume: after a restart every source asks again. The requests are followed only once a
pod of this node wants a certificate.

Source: KEP-4317, pkg/kubelet/podcertificate.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from berg.client.informer import Informer, InformerFactory
from berg.client.rest import Client
from berg.kubelet import pod as p
from berg.kubelet.volumes.content import VolumeError
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

SYNC_TIMEOUT_S = 5.0
GIVEN_UP_S = 600.0
"""a request that is not there for so long was deleted"""
OVERDUE_S = 600.0
JITTER_S = 300.0
"""pods that came together must not ask together"""
_BLOCK = re.compile(r"-----BEGIN [^-]+-----(.*?)-----END [^-]+-----", re.S)
_RSA = {"RSA3072": 3072, "RSA4096": 4096}
_CURVES = {
    "ECDSAP256": ("SECP256R1", "SHA256"),
    "ECDSAP384": ("SECP384R1", "SHA384"),
    "ECDSAP521": ("SECP521R1", "SHA512"),
}

Bundle = tuple[bytes, bytes]
"""private key and certificate chain, both PEM"""


@dataclass(slots=True)
class _Asked:
    name: str
    key: bytes
    given_up_at: float


@dataclass(slots=True)
class _Source:
    """One source of one volume of one pod. Times are seconds of the wall clock."""

    signer: str
    bundle: Bundle | None = None
    refresh_at: float = 0.0
    expires: float = 0.0
    asked: _Asked | None = None
    refused: str = ""
    """denied or failed; `why` is what the volume's failure says"""
    why: str = ""
    told: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def state(self, now: float) -> str:
        if self.refused:
            return self.refused
        if self.bundle is None:
            return "not_yet_issued"
        if now > self.expires:
            return "expired"
        return "overdue_for_refresh" if now > self.refresh_at + OVERDUE_S else "fresh"


class PodCertificates:
    def __init__(
        self,
        client: Client,
        clock: Clock,
        informers: InformerFactory,
        node: Callable[[], Obj | None],
        event: Callable[[Obj, str, str, str], None],
        changed: Callable[[set[str]], None],
    ) -> None:
        """`changed` is told the UIDs of pods whose requests have been answered."""
        self._client, self._clock, self._informers = client, clock, informers
        self._node, self._event, self._changed = node, event, changed
        self._sources: dict[tuple[str, str, int], _Source] = {}
        self._informer: Informer | None = None
        self._followed = False

    async def get(self, pod: Obj, volume: str, index: int, source: Obj) -> Bundle:
        """Raises VolumeError while there is none, and for good when it was refused."""
        await self._follow()
        held = self._sources.setdefault((p.uid(pod), volume, index), _Source(source["signerName"]))
        async with held.lock:
            if held.asked is not None:
                self._answered(pod, held, held.asked)
            now = self._clock.now().timestamp()
            if not held.refused and held.asked is None and (held.bundle is None or now >= held.refresh_at):
                try:
                    held.asked = await self._ask(pod, source)
                except ApiError as e:
                    if held.bundle is None:
                        raise VolumeError(f"while creating PodCertificateRequest: {e.message}") from e
                    log.warning("pod %s: new certificate not asked for: %s", p.full_name(pod), e.message)
            if held.refused:
                raise VolumeError(held.why)
            if held.bundle is None:
                raise VolumeError("credential bundle is not issued yet")
            self._tell_what_is_late(pod, held, now)
            return held.bundle

    def next_renewal(self, uid: str) -> float | None:
        """When to look at this pod's certificates again (wall seconds)."""
        times: list[float] = []
        for (of, _, _), s in self._sources.items():
            if of != uid or s.refused or s.bundle is None:
                continue
            if s.asked is None:
                times.append(s.refresh_at)
                continue
            times.append(s.asked.given_up_at)
            due = {"CertificateOverdueForRefresh": s.refresh_at + OVERDUE_S, "CertificateExpired": s.expires}
            times += [at for reason, at in due.items() if reason not in s.told]
        return min(times, default=None)

    def forget(self, uid: str) -> None:
        for key in [k for k in self._sources if k[0] == uid]:
            del self._sources[key]

    def states(self) -> Counter[tuple[str, str]]:
        """(signer, state) → how many."""
        now = self._clock.now().timestamp()
        return Counter((s.signer, s.state(now)) for s in self._sources.values())

    # ---- asking

    async def _follow(self) -> None:
        if self._followed:
            return
        if self._informer is None:
            node = self._node()
            if node is None:
                raise VolumeError("the node is not registered yet")
            self._informer = self._informers.informer(
                resource("podcertificaterequests.certificates.k8s.io"),
                field_selector=f"spec.nodeName={node['metadata']['name']}",
            )
            self._informer.start()
        try:
            async with asyncio.timeout(SYNC_TIMEOUT_S):
                await self._informer.synced.wait()
        except TimeoutError as e:
            raise VolumeError("PodCertificateRequests could not be read yet") from e
        if not self._followed:
            self._followed = True
            self._informer.add_handler(self._seen, lambda _, new: self._seen(new), self._seen)

    def _seen(self, request: Obj) -> None:
        uid = request["spec"]["podUID"]
        if _answer(request) and any(key[0] == uid and s.asked for key, s in self._sources.items()):
            self._changed({uid})

    async def _ask(self, pod: Obj, source: Obj) -> _Asked:
        account = pod["spec"].get("serviceAccountName") or "default"
        found = await self._client.get(resource("serviceaccounts"), p.namespace(pod), account)
        node = self._node()
        assert node is not None
        key, stub = await asyncio.to_thread(key_and_request, source.get("keyType") or "")
        spec: Obj = {
            "signerName": source["signerName"],
            "podName": p.name(pod),
            "podUID": p.uid(pod),
            "serviceAccountName": account,
            "serviceAccountUID": found["metadata"]["uid"],
            "nodeName": node["metadata"]["name"],
            "nodeUID": node["metadata"]["uid"],
            "stubPKCS10Request": base64.b64encode(stub).decode(),
        }
        if source.get("maxExpirationSeconds") is not None:
            spec["maxExpirationSeconds"] = source["maxExpirationSeconds"]
        if source.get("userAnnotations"):
            spec["unverifiedUserAnnotations"] = source["userAnnotations"]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": p.name(pod), "uid": p.uid(pod)}
        request: Obj = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "PodCertificateRequest",
            "metadata": {"generateName": "req-", "namespace": p.namespace(pod), "ownerReferences": [owner]},
            "spec": spec,
        }
        made = await self._client.create(
            resource("podcertificaterequests.certificates.k8s.io"), request, p.namespace(pod)
        )
        begun = self._clock.now().timestamp()
        return _Asked(made["metadata"]["name"], key, begun + GIVEN_UP_S + random.uniform(0, JITTER_S))

    def _answered(self, pod: Obj, held: _Source, asked: _Asked) -> None:
        """Takes over the signer's answer, if there is one."""
        assert self._informer is not None
        request = self._informer.lister.get(p.namespace(pod), asked.name)
        if request is None:
            if self._clock.now().timestamp() > asked.given_up_at:
                held.asked = None
            return
        condition = _answer(request)
        if condition is None:
            return
        held.asked = None
        status = request["status"]
        if condition["type"] == "Issued":
            held.bundle = asked.key, clean_chain(status["certificateChain"])
            begin = parse_rfc3339(status["beginRefreshAt"]).timestamp()
            held.refresh_at = begin + random.uniform(0, JITTER_S)
            held.expires = parse_rfc3339(status["notAfter"]).timestamp()
            held.told.clear()
            return
        reason, message = condition.get("reason") or "", condition.get("message") or ""
        held.refused = condition["type"].lower()
        held.why = f'PodCertificateRequest was permanently {held.refused}: reason="{reason}" message="{message}"'
        what = f"{p.namespace(pod)}/{asked.name} {'was denied' if held.refused == 'denied' else held.refused}"
        text = f'PodCertificateRequest {what}, reason="{reason}", message="{message}"'
        self._event(pod, "Warning", condition["type"], text)

    def _tell_what_is_late(self, pod: Obj, held: _Source, now: float) -> None:
        for reason, at, text in (
            ("CertificateOverdueForRefresh", held.refresh_at + OVERDUE_S, "PodCertificate refresh overdue"),
            ("CertificateExpired", held.expires, "PodCertificate expired"),
        ):
            if now > at and reason not in held.told:
                held.told.add(reason)
                self._event(pod, "Warning", reason, text)


def _answer(request: Obj) -> Obj | None:
    for c in (request.get("status") or {}).get("conditions") or ():
        if c["type"] in ("Issued", "Denied", "Failed"):
            found: Obj = c
            return found
    return None


def key_and_request(key_type: str) -> tuple[bytes, bytes]:
    """A new private key (PEM, PKCS #8), and a signing request (DER) that proves it and says nothing else.
    Raises ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    digest: Any = hashes.SHA256()
    if key_type in _RSA:
        key = rsa.generate_private_key(65537, _RSA[key_type])
    elif key_type in _CURVES:
        curve, hashed = _CURVES[key_type]
        key, digest = ec.generate_private_key(getattr(ec, curve)()), getattr(hashes, hashed)()
    elif key_type == "ED25519":
        key, digest = ed25519.Ed25519PrivateKey.generate(), None
    else:
        raise ValueError(f'while generating keypair: unknown key type "{key_type}"')
    stub = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, stub.public_bytes(Encoding.DER)


def clean_chain(text: str) -> bytes:
    """Only the certificates, without what stands between or within their blocks."""
    blocks = []
    for body in _BLOCK.findall(text):
        der = base64.b64decode("".join(line for line in body.splitlines() if ":" not in line))
        encoded = base64.b64encode(der).decode()
        lines = [encoded[i : i + 64] for i in range(0, len(encoded), 64)]
        blocks.append("-----BEGIN CERTIFICATE-----\n" + "\n".join(lines) + "\n-----END CERTIFICATE-----\n")
    return "".join(blocks).encode()
