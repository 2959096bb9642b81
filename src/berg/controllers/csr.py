"""CertificateSigningRequests: approving those of kubelets, signing approved ones, cleaning up.

Which request may be signed under which signer's name is in csr_policy.py.

Source: pkg/controller/certificates.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

from berg.controllers import csr_policy as policy
from berg.controllers.context import APIController, Context
from berg.controllers.objects import conditions_of, find_condition, time_of
from berg.machinery import meta
from berg.machinery.clock import rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

APPROVED_FOR_S = 3600.0
DENIED_FOR_S = 3600.0
PENDING_FOR_S = 24 * 3600.0
MIN_LIFETIME_S = 600.0
CSRS = "certificatesigningrequests.certificates.k8s.io"


def is_true(csr: Obj, type: str) -> bool:
    c = find_condition(conditions_of(csr), type)
    return c is not None and c.get("status", "True") == "True"


def certificate(csr: Obj) -> bytes:
    return base64.b64decode((csr.get("status") or {}).get("certificate") or "")


class _Requests(APIController):
    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource(CSRS)
        self.requests = ctx.informer(CSRS)
        self.follow(self.requests)


class Approver(_Requests):
    """Approves client certificates of kubelets that may ask for them (RBAC: nodeclient, selfnodeclient)."""

    name = "certificatesigningrequest-approving-controller"

    async def reconcile(self, key: str) -> None:
        csr = self.requests.lister.get_key(key)
        if csr is None or certificate(csr) or is_true(csr, "Approved") or is_true(csr, "Denied"):
            return
        if csr["spec"]["signerName"] != policy.KUBELET_CLIENT:
            return
        request = policy.parse(csr)
        if policy.kubelet_client_fault(request, csr["spec"].get("usages") or []):
            return
        tries = [("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")]
        if csr["spec"].get("username") == policy.common_name(request):
            text = "Auto approving self kubelet client certificate after SubjectAccessReview."
            tries.insert(0, ("selfnodeclient", text))
        for subresource, message in tries:
            if await self._allowed(csr, subresource):
                await self._approve(csr, message)
                return

    async def _allowed(self, csr: Obj, subresource: str) -> bool:
        spec = csr["spec"]
        body = {
            "spec": {
                "user": spec.get("username", ""),
                "uid": spec.get("uid", ""),
                "groups": spec.get("groups") or [],
                "extra": spec.get("extra") or {},
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "subresource": subresource,
                    "version": "*",
                },
            }
        }
        answer = await self.client.create(resource("subjectaccessreviews.authorization.k8s.io"), body)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _approve(self, csr: Obj, message: str) -> None:
        now = rfc3339(self.clock.now())
        condition = {
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": message,
            "lastUpdateTime": now,
        }
        status = {**(csr.get("status") or {}), "conditions": [*conditions_of(csr), condition]}
        await self.client.update(self.resource, {**csr, "status": status}, subresource="approval")


class Signer(_Requests):
    """Signs what is approved, for the signers of Kubernetes itself, with the cluster's CA."""

    name = "certificatesigningrequest-signing-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self._certificate: Any = None
        self._key: Any = None

    async def start(self) -> None:
        config = self.ctx.config
        if config.cluster_signing_cert_file and config.cluster_signing_key_file:
            self._certificate, self._key = policy.load_authority(
                config.cluster_signing_cert_file, config.cluster_signing_key_file
            )
            await super().start()

    async def reconcile(self, key: str) -> None:
        csr = self.requests.lister.get_key(key)
        if csr is None or certificate(csr) or not is_true(csr, "Approved") or is_true(csr, "Denied"):
            return
        if is_true(csr, "Failed") or csr["spec"]["signerName"] not in policy.RULES:
            return
        status = dict(csr.get("status") or {})
        request = policy.parse(csr)
        fault = policy.RULES[csr["spec"]["signerName"]](request, csr["spec"].get("usages") or [])
        now = self.clock.now()
        if fault:
            failed = {
                "type": "Failed",
                "status": "True",
                "reason": "SignerValidationFailure",
                "message": fault,
                "lastUpdateTime": rfc3339(now),
            }
            status["conditions"] = [*conditions_of(csr), failed]
        else:
            signed = policy.sign(
                request, csr["spec"].get("usages") or [], self._lifetime(csr), now, self._certificate, self._key
            )
            status["certificate"] = base64.b64encode(signed).decode()
        await self.client.update_status(self.resource, {**csr, "status": status})

    def _lifetime(self, csr: Obj) -> timedelta:
        longest = self.ctx.config.cluster_signing_duration_s
        wanted = csr["spec"].get("expirationSeconds")
        return timedelta(seconds=longest if wanted is None else min(max(wanted, MIN_LIFETIME_S), longest))


class Cleaner(_Requests):
    """Requests that are of no more use: an hour after their end, a day without any answer."""

    name = "certificatesigningrequest-cleaner-controller"
    workers = 1

    async def reconcile(self, key: str) -> None:
        csr = self.requests.lister.get_key(key)
        if csr is None:
            return
        now = self.clock.now()
        left = (self._until(csr) - now).total_seconds()
        if left > 0:
            self.queue.add_after(key, left)
            return
        try:
            await self.client.delete(self.resource, None, key, uid=meta.uid(csr))
        except ApiError as e:
            if e.code != 404:
                raise

    def _until(self, csr: Obj) -> datetime:
        created = time_of(csr["metadata"]["creationTimestamp"])
        assert created is not None
        ends: list[datetime] = []
        issued = certificate(csr)
        lasting = (("Denied", DENIED_FOR_S), ("Failed", DENIED_FOR_S))
        for type, seconds in (*lasting, ("Approved", APPROVED_FOR_S if issued else PENDING_FOR_S)):
            c = find_condition(conditions_of(csr), type)
            if c is not None:
                ends.append((time_of(c.get("lastUpdateTime")) or created) + timedelta(seconds=seconds))
        if issued and (expiry := policy.expires(issued)) is not None:
            ends.append(expiry)
        return min(ends) if ends else created + timedelta(seconds=PENDING_FOR_S)
