"""Service account credentials: each controller acts as an account of its own, with that account's few rights.

The manager itself may only read, and ask for tokens (upstream's role system:kube-controller-manager); a controller's
rights are those of its role `system:controller:…`. Tokens live an hour and are asked for again at four fifths of
that. All controllers share one pool of connections, one without a client certificate: a certificate would go before
the token.

Source: k8s.io/controller-manager pkg/clientbuilder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from berg.client.rest import Client
from berg.client.transport import Transport, TransportResponse
from berg.machinery.resources import resource
from berg.machinery.status import ApiError

NAMESPACE = "kube-system"
LIFETIME_S = 3600
ACCOUNTS = {
    "endpoints-controller": "endpoint-controller",
    "endpointslice-controller": "endpointslice-controller",
    "endpointslice-mirroring-controller": "endpointslicemirroring-controller",
    "replicationcontroller-controller": "replication-controller",
    "pod-garbage-collector-controller": "pod-garbage-collector",
    "resourcequota-controller": "resourcequota-controller",
    "namespace-controller": "namespace-controller",
    "serviceaccount-controller": "service-account-controller",
    "garbage-collector-controller": "generic-garbage-collector",
    "daemonset-controller": "daemon-set-controller",
    "job-controller": "job-controller",
    "deployment-controller": "deployment-controller",
    "replicaset-controller": "replicaset-controller",
    "horizontal-pod-autoscaler-controller": "horizontal-pod-autoscaler",
    "disruption-controller": "disruption-controller",
    "statefulset-controller": "statefulset-controller",
    "cronjob-controller": "cronjob-controller",
    "certificatesigningrequest-signing-controller": "certificate-controller",
    "certificatesigningrequest-approving-controller": "certificate-controller",
    "certificatesigningrequest-cleaner-controller": "certificate-controller",
    "ttl-controller": "ttl-controller",
    "bootstrap-signer-controller": "bootstrap-signer",
    "token-cleaner-controller": "token-cleaner",
    "node-ipam-controller": "node-controller",
    "node-lifecycle-controller": "node-controller",
    "taint-eviction-controller": "node-controller",
    "persistentvolume-binder-controller": "persistent-volume-binder",
    "persistentvolume-attach-detach-controller": "attachdetach-controller",
    "persistentvolume-protection-controller": "pv-protection-controller",
    "persistentvolumeclaim-protection-controller": "pvc-protection-controller",
    "volumeattributesclass-protection-controller": "volumeattributesclass-protection-controller",
    "clusterrole-aggregation-controller": "clusterrole-aggregation-controller",
    "ttl-after-finished-controller": "ttl-after-finished-controller",
    "root-ca-certificate-publisher-controller": "root-ca-cert-publisher",
    "ephemeral-volume-controller": "ephemeral-volume-controller",
    "resourceclaim-controller": "resource-claim-controller",
    "legacy-serviceaccount-token-cleaner-controller": "legacy-service-account-token-cleaner",
    "validatingadmissionpolicy-status-controller": "validatingadmissionpolicy-status-controller",
    "service-cidr-controller": "service-cidrs-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller": (
        "kube-apiserver-serving-clustertrustbundle-publisher"
    ),
    "podcertificaterequest-cleaner-controller": "podcertificaterequestcleaner",
    "storage-version-migrator-controller": "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller": "storage-version-garbage-collector",
}
"""controller → service account; one that is not here acts as the manager"""


class AccountTransport:
    """Requests as one service account."""

    def __init__(self, base: Transport, manager: Client, account: str) -> None:
        self._base, self._manager, self._account = base, manager, account
        self._token = ""
        self._renew_at = float("-inf")
        self._asking: asyncio.Lock = asyncio.Lock()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> TransportResponse:
        send = {**(headers or {}), "Authorization": f"Bearer {await self._current()}"}
        answer = await self._base.request(method, path, query=query, headers=send, body=body)
        if answer.status == 401:  # the account was deleted and made again, or the keys were changed
            self._renew_at = float("-inf")
        return answer

    async def close(self) -> None:
        pass  # the connections are shared

    async def _current(self) -> str:
        clock = self._manager.clock
        if clock.monotonic() >= self._renew_at:
            async with self._asking:
                if clock.monotonic() >= self._renew_at:
                    self._token = await self._ask()
                    self._renew_at = clock.monotonic() + LIFETIME_S * 0.8
        return self._token

    async def _ask(self) -> str:
        accounts = resource("serviceaccounts")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": LIFETIME_S},
        }
        for _ in range(2):
            try:
                answer = await self._manager.create(accounts, body, NAMESPACE, name=self._account, subresource="token")
                return str(answer["status"]["token"])
            except ApiError as e:
                if e.code != 404:
                    raise
            try:
                md = {"name": self._account, "namespace": NAMESPACE}
                await self._manager.create(accounts, {"metadata": md})
            except ApiError as e:
                if e.reason != "AlreadyExists":
                    raise
        raise ApiError(404, "NotFound", f'serviceaccounts "{self._account}" not found')


class Credentials:
    """Clients by controller. Without `bare` connections (in memory) all act as the manager."""

    def __init__(self, manager: Client, *, enabled: bool) -> None:
        self._manager = manager
        bare = getattr(manager.transport, "without_credentials", None) if enabled else None
        self._bare: Transport | None = bare() if bare is not None else None
        self._clients: dict[str, Client] = {}

    def client(self, controller: str) -> Client:
        account = ACCOUNTS.get(controller)
        if self._bare is None or account is None:
            return self._manager
        if account not in self._clients:
            transport = AccountTransport(self._bare, self._manager, account)
            agent = f"{self._manager.user_agent}/{account}"
            self._clients[account] = Client(transport, user_agent=agent, clock=self._manager.clock)
        return self._clients[account]

    async def close(self) -> None:
        if self._bare is not None:
            await self._bare.close()
