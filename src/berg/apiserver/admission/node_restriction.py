"""NodeRestriction: a kubelet writes its own node and the pods on it, and nothing else.

Source: kubernetes plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.admission.interface import CREATE, DELETE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.admission.service_account import MIRROR, secret_names
from berg.apiserver.http.message import User
from berg.apiserver.kinds.sameness import same
from berg.machinery import status
from berg.machinery.resources import Resource, resource
from berg.machinery.status import Obj

NODE_PREFIX, NODES_GROUP = "system:node:", "system:nodes"
KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    }
)
_KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


def node_of(user: User) -> str | None:
    """The node that a user is; "" for one that says it is a node but not which; None for everyone else."""
    if NODES_GROUP not in user.groups or not user.name.startswith(NODE_PREFIX):
        return None
    return user.name.removeprefix(NODE_PREFIX)


def _under(domain: str, *suffixes: str) -> bool:
    return any(domain == s or domain.endswith(f".{s}") for s in suffixes)


def _forbidden_labels(new: Obj, old: Obj) -> list[str]:
    found = []
    for label in new.keys() | old.keys():
        if new.get(label) == old.get(label):
            continue
        domain = label.partition("/")[0] if "/" in label else ""
        kubernetes = _under(domain, "kubernetes.io", "k8s.io")
        kubelets = label in KUBELET_LABELS or _under(domain, *_KUBELET_DOMAINS)
        if _under(domain, "node-restriction.kubernetes.io") or (kubernetes and not kubelets):
            found.append(label)
    return sorted(found)


class NodeRestriction(Plugin):
    name = "NodeRestriction"
    mutating = True
    operations = frozenset({CREATE, UPDATE, DELETE})
    subresources = None

    def handles(self, a: Attributes) -> bool:
        return a.resource.group_resource in _RULES and node_of(a.user) is not None

    async def admit(self, a: Attributes) -> None:
        node = node_of(a.user)
        if not node:
            raise forbidden(a, f'could not determine node from user "{a.user.name}"')
        fault = _RULES[a.resource.group_resource](self, node, a)
        if fault:
            raise forbidden(a, fault)

    def _existing(self, r: Resource, namespace: str, name: str) -> Obj:
        found = self.api.get(r, namespace, name)
        if found is None:
            raise status.not_found(r.group, r.plural, name)
        return found

    def pod(self, node: str, a: Attributes) -> str:
        match a.subresource, a.operation:
            case "", "CREATE":
                return self._mirror_pod(node, a.obj or {})
            case "", "DELETE":
                pod = self._existing(resource("pods"), a.namespace, a.name)
                if pod["spec"].get("nodeName") != node:
                    return f'node "{node}" can only delete pods with spec.nodeName set to itself'
                return ""
            case "", _:
                return f'unexpected operation "{a.operation}", node "{node}" can only create and delete mirror pods'
            case "status", "UPDATE":
                return self._pod_status(node, a.old or {}, a.obj or {})
            case "eviction", "CREATE":
                name = a.name or ((a.obj or {}).get("metadata") or {}).get("name") or ""
                if not name:
                    return "could not determine pod from request data"
                pod = self._existing(resource("pods"), a.namespace, name)
                if pod["spec"].get("nodeName") != node:
                    return f"node {node} can only evict pods with spec.nodeName set to itself"
                return ""
            case "status" | "eviction", _:
                return f'unexpected operation "{a.operation}"'
        return f"unexpected pod subresource \"{a.subresource}\", only 'status' and 'eviction' are allowed"

    def _mirror_pod(self, node: str, pod: Obj) -> str:
        metadata, spec = pod["metadata"], pod["spec"]
        if MIRROR not in (metadata.get("annotations") or {}):
            return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
        if spec.get("nodeName") != node:
            return f'node "{node}" can only create pods with spec.nodeName set to itself'
        owners = metadata.get("ownerReferences") or []
        if len(owners) > 1:
            return f'node "{node}" can only create pods with a single owner reference set to itself'
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            return f'node "{node}" can only create pods with an owner reference set to itself'
        if not owner.get("controller"):
            return f'node "{node}" can only create pods with a controller owner reference set to itself'
        if owner.get("blockOwnerDeletion"):
            return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
        known = self._existing(resource("nodes"), "", node)["metadata"].get("uid")
        if owner.get("uid") != known:
            return f"node {node} UID mismatch: expected {owner.get('uid')} got {known}"
        if kind := _api_reference(spec):
            return f'node "{node}" can not create pods that reference {kind}'
        return ""

    def _pod_status(self, node: str, old: Obj, new: Obj) -> str:
        if old["spec"].get("nodeName") != node:
            return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
        if (old["metadata"].get("labels") or {}) != (new["metadata"].get("labels") or {}):
            return f'node "{node}" cannot update labels through pod status'
        before, after = old.get("status") or {}, new.get("status") or {}
        if not same(before.get("resourceClaimStatuses"), after.get("resourceClaimStatuses")):
            return f'node "{node}" cannot update resource claim statues'
        if not same(before.get("extendedResourceClaimStatus"), after.get("extendedResourceClaimStatus")):
            return f'node "{node}" cannot update extended resource claim status'
        return ""

    def node(self, node: str, a: Attributes) -> str:
        name = a.name or ((a.obj or {}).get("metadata") or {}).get("name") or ""
        if name != node:
            return f'node "{node}" is not allowed to modify node "{name}"'
        if a.operation == DELETE or a.obj is None:
            return ""
        new, old = a.obj, a.old or {}
        labels, before = new["metadata"].get("labels") or {}, (old.get("metadata") or {}).get("labels") or {}
        bad = _forbidden_labels(labels, before)
        if a.operation == CREATE:
            if (new.get("spec") or {}).get("configSource") is not None:
                return f'node "{node}" is not allowed to create pods with a non-nil configSource'
            return f'node "{node}" is not allowed to set the following labels: {", ".join(bad)}' if bad else ""
        if not same((new.get("spec") or {}).get("taints"), (old.get("spec") or {}).get("taints")):
            return f'node "{node}" is not allowed to modify taints'
        if not same(new["metadata"].get("ownerReferences"), (old.get("metadata") or {}).get("ownerReferences")):
            return f'node "{node}" is not allowed to modify ownerReferences'
        return f"is not allowed to modify labels: {', '.join(bad)}" if bad else ""

    def claim(self, node: str, a: Attributes) -> str:
        if a.subresource != "status":
            return "may only update PVC status"
        if a.operation != UPDATE:
            return f'unexpected operation "{a.operation}"'
        if same(_bare_claim(a.obj or {}), _bare_claim(a.old or {})):
            return ""
        return f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions: '

    def service_account(self, node: str, a: Attributes) -> str:
        if a.operation != CREATE or a.subresource != "token":
            return ""
        ref = ((a.obj or {}).get("spec") or {}).get("boundObjectRef") or {}
        if ref.get("apiVersion") != "v1" or ref.get("kind") != "Pod" or not ref.get("name"):
            return "node requested token not bound to a pod"
        if not ref.get("uid"):
            return "node requested token with a pod binding without a uid"
        pod = self._existing(resource("pods"), a.namespace, ref["name"])
        if pod["metadata"].get("uid") != ref["uid"]:
            return (
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. The object "
                "might have been deleted and then recreated"
            )
        if pod["spec"].get("nodeName") != node:
            return "node requested token bound to a pod scheduled on a different node"
        return ""

    def lease(self, node: str, a: Attributes) -> str:
        if a.namespace != "kube-node-lease":
            return 'can only access leases in the "kube-node-lease" system namespace'
        name = (a.obj or {}).get("metadata", {}).get("name") if a.operation == CREATE else a.name
        return "" if name == node else "can only access node lease with the same name as the requesting node"

    def csi_node(self, node: str, a: Attributes) -> str:
        name = (a.obj or {}).get("metadata", {}).get("name") if a.operation == CREATE else a.name
        return "" if name == node else "can only access CSINode with the same name as the requesting node"

    def resource_slice(self, node: str, a: Attributes) -> str:
        holder = a.obj if a.operation == CREATE else a.old
        if ((holder or {}).get("spec") or {}).get("nodeName") == node:
            return ""
        verb = {CREATE: "create", UPDATE: "update", DELETE: "delete"}[a.operation]
        if a.operation == CREATE:
            return "can only create ResourceSlice with the same NodeName as the requesting node"
        return f"can only {verb} ResourceSlice with the same NodeName as the requesting node"

    def pod_certificate_request(self, node: str, a: Attributes) -> str:
        from berg.apiserver.admission import node_certificates

        return node_certificates.fault(self.api, node, a)


def _bare_claim(claim: Obj) -> Obj:
    hidden = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")
    return {
        "spec": claim.get("spec"),
        "metadata": {
            k: v for k, v in (claim.get("metadata") or {}).items() if k not in ("resourceVersion", "managedFields")
        },
        "status": {k: v for k, v in (claim.get("status") or {}).items() if k not in hidden},
    }


def _api_reference(spec: Obj) -> str:
    """What kind of API object a static pod refers to, or "". It may refer to none."""
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    if any(secret_names(spec)):
        return "secrets"
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for c in spec.get(key) or ():
            if any((e.get("valueFrom") or {}).get("configMapKeyRef") for e in c.get("env") or ()):
                return "configmaps"
            if any(e.get("configMapRef") for e in c.get("envFrom") or ()):
                return "configmaps"
    for v in spec.get("volumes") or ():
        if v.get("configMap") is not None:
            return "configmaps"
        if v.get("persistentVolumeClaim") is not None:
            return "persistentvolumeclaims"
        for source in (v.get("projected") or {}).get("sources") or ():
            for kind, name in (
                ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
                ("configMap", "configmaps (via projected volumes)"),
                ("clusterTrustBundle", "clustertrustbundles"),
            ):
                if source.get(kind) is not None:
                    return name
    return "resourceclaims" if spec.get("resourceClaims") else ""


_RULES: dict[str, Callable[[NodeRestriction, str, Attributes], str]] = {
    "pods": NodeRestriction.pod,
    "nodes": NodeRestriction.node,
    "persistentvolumeclaims": NodeRestriction.claim,
    "serviceaccounts": NodeRestriction.service_account,
    "leases.coordination.k8s.io": NodeRestriction.lease,
    "csinodes.storage.k8s.io": NodeRestriction.csi_node,
    "resourceslices.resource.k8s.io": NodeRestriction.resource_slice,
    "podcertificaterequests.certificates.k8s.io": NodeRestriction.pod_certificate_request,
}
