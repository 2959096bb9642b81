"""What a cluster has beside the API's own bootstrap: the DNS service and the rights of Berg's own components.

Applied server-side at every start, so what a user changed under another manager stays theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berg.lifecycle.spec import ClusterSpec
from berg.machinery.resources import builtin
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.client.rest import Client

_READ = ["get", "list", "watch"]


def _role(name: str, rules: list[Obj]) -> list[Obj]:
    """A ClusterRole and its binding to the user of the same name."""
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": api, "kind": "User", "name": name}],
        },
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def manifests(spec: ClusterSpec) -> list[Obj]:
    dns: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": spec.dns_address,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }
    return [
        dns,
        *_role(
            "berg:dns",
            [
                _rule("", ["services", "namespaces"], _READ),
                _rule("discovery.k8s.io", ["endpointslices"], [*_READ, "create", "patch", "update", "delete"]),
            ],
        ),
        *_role(
            "berg:network",
            [
                _rule("", ["nodes", "pods", "namespaces"], _READ),
                _rule("networking.k8s.io", ["networkpolicies"], _READ),
            ],
        ),
    ]


class Addons:
    def __init__(self, client: Client, spec: ClusterSpec) -> None:
        self._client, self._spec = client, spec

    async def start(self) -> None:
        for obj in manifests(self._spec):
            group, _, version = obj["apiVersion"].rpartition("/")
            r = builtin().by_kind(group, version, obj["kind"])
            assert r is not None
            m = obj["metadata"]
            await self._client.patch(
                r, m.get("namespace"), m["name"], obj, type="apply", field_manager="berg", force=True
            )

    async def stop(self) -> None:
        await self._client.close()
