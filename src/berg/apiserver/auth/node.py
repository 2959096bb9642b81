"""The Node authorizer: a kubelet may read what its pods use, and write what is its own.

There is no graph to keep: the question "does a pod of this node use that object?" is answered from the pods of
the node, which an index of the watch cache holds.

Source: kubernetes plugin/pkg/auth/authorizer/node.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from berg.apiserver.auth.authorization import ALLOWED, NO_OPINION, AuthzAttributes, Decision, Verdict
from berg.apiserver.auth.rbac import Rule
from berg.apiserver.hooks import gated_roles
from berg.apiserver.registry.services import Services
from berg.machinery import fields
from berg.machinery.resources import resource
from berg.machinery.status import Obj

_PREFIX = "system:node:"
_VERBS = frozenset(("get", "create", "update", "patch", "delete"))


def node_name(groups: tuple[str, ...], user: str) -> str | None:
    """None when the user is no node."""
    if "system:nodes" not in groups or not user.startswith(_PREFIX):
        return None
    return user[len(_PREFIX) :]


def _no(reason: str) -> Verdict:
    return Verdict(Decision.NO_OPINION, reason)


class NodeAuthorizer:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._references: dict[str, tuple[str, frozenset[tuple[str, str]]]] = {}
        enabled = services.features.enabled
        self._rules = (*_node_rules(), *(Rule(r) for r in gated_roles.node_rules(enabled)))
        self._pod_certificates = enabled("PodCertificateRequest")

    def authorize(self, a: AuthzAttributes) -> Verdict:
        node = node_name(a.user.groups, a.user.name)
        if node is None:
            return NO_OPINION
        if not node:
            return _no(f'unknown node for user "{a.user.name}"')
        if a.is_resource:
            match (a.group, a.resource):
                case ("", "secrets" | "configmaps"):
                    return self._read_namespaced(node, a)
                case ("", "persistentvolumeclaims"):
                    if a.subresource == "status":
                        if a.verb not in ("update", "patch"):
                            return _no("can only get/update/patch this type")
                        return self._related(node, a)
                    return self._get(node, a)
                case ("", "persistentvolumes") | ("resource.k8s.io", "resourceclaims"):
                    return self._get(node, a)
                case ("storage.k8s.io", "volumeattachments"):
                    return self._get(node, a)
                case ("", "serviceaccounts"):
                    return self._service_account(node, a)
                case ("coordination.k8s.io", "leases"):
                    return _lease(node, a)
                case ("storage.k8s.io", "csinodes"):
                    return _csi_node(node, a)
                case ("resource.k8s.io", "resourceslices"):
                    return _resource_slice(node, a)
                case ("", "nodes"):
                    return _node(node, a)
                case ("", "pods"):
                    return self._pod(node, a)
                case ("certificates.k8s.io", "podcertificaterequests"):
                    return self._pod_certificate_request(node, a)
        return ALLOWED if any(rule.covers(a) for rule in self._rules) else NO_OPINION

    # ---- objects that pods use

    def _read_namespaced(self, node: str, a: AuthzAttributes) -> Verdict:
        if a.verb not in ("get", "list", "watch"):
            return _no("can only read resources of this type")
        if a.subresource:
            return _no("cannot read subresource")
        if not a.namespace:
            return _no("can only read namespaced object of this type")
        return self._related(node, a)

    def _get(self, node: str, a: AuthzAttributes) -> Verdict:
        if a.verb != "get":
            return _no("can only get individual resources of this type")
        if a.subresource:
            return _no("cannot get subresource")
        return self._related(node, a)

    def _service_account(self, node: str, a: AuthzAttributes) -> Verdict:
        if a.verb == "get" and not a.subresource:
            return self._read_namespaced(node, a)
        if a.verb != "create" or not a.name:
            return _no("can only create tokens for individual service accounts")
        if a.subresource != "token":
            return _no("can only create token subresource of serviceaccount")
        return self._related(node, a)

    def _related(self, node: str, a: AuthzAttributes) -> Verdict:
        if not a.name:
            return _no("No Object name found")
        if self._uses(node, a.resource, a.namespace, a.name):
            return ALLOWED
        return _no(f"no relationship found between node '{node}' and this object")

    def _uses(self, node: str, plural: str, namespace: str, name: str) -> bool:
        services = self._services
        if plural == "volumeattachments":
            found = services.get(resource("volumeattachments.storage.k8s.io"), "", name)
            return found is not None and found["spec"].get("nodeName") == node
        if plural == "podcertificaterequests":
            found = services.get(resource("podcertificaterequests.certificates.k8s.io"), namespace, name)
            return found is not None and found["spec"].get("nodeName") == node
        pods = services.by_index(resource("pods"), "spec.nodeName", node)
        if plural == "persistentvolumes":
            claims = resource("persistentvolumeclaims")
            for pod in pods:
                for kind, claim_name in self._of(pod):
                    if kind == "persistentvolumeclaims":
                        claim = services.get(claims, pod["metadata"]["namespace"], claim_name)
                        if claim is not None and (claim.get("spec") or {}).get("volumeName") == name:
                            return True
            return False
        wanted = (plural, name)
        if any(p["metadata"]["namespace"] == namespace and wanted in self._of(p) for p in pods):
            return True
        if plural == "configmaps":
            own = services.get(resource("nodes"), "", node)
            source = ((own or {}).get("spec") or {}).get("configSource") or {}
            ref = source.get("configMap") or {}
            return ref.get("namespace") == namespace and ref.get("name") == name
        return False

    def _of(self, pod: Obj) -> frozenset[tuple[str, str]]:
        meta = pod["metadata"]
        uid, version = meta["uid"], meta.get("resourceVersion", "")
        known = self._references.get(uid)
        if known is None or known[0] != version:
            if len(self._references) > 20_000:
                self._references.clear()
            known = self._references[uid] = (version, frozenset(references(pod)))
        return known[1]

    def _pod(self, node: str, a: AuthzAttributes) -> Verdict:
        match a.subresource, a.verb:
            case "", "get":
                pod = self._services.get(resource("pods"), a.namespace, a.name)
                if pod is not None and (pod.get("spec") or {}).get("nodeName") == node:
                    return ALLOWED
                return _no(f"no relationship found between node '{node}' and this object")
            case "", ("list" | "watch"):
                if _selects(a, "spec.nodeName", node):
                    return ALLOWED
                return _no("can only list/watch pods with spec.nodeName field selector")
            case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
                return ALLOWED  # NodeRestriction sees to it that they are the node's own
        return NO_OPINION

    def _pod_certificate_request(self, node: str, a: AuthzAttributes) -> Verdict:
        if not self._pod_certificates:
            return NO_OPINION
        if a.subresource:
            return _no("nodes may not access the status subresource of PodCertificateRequests")
        match a.verb:
            case "create":
                return ALLOWED  # NodeRestriction sees to it that it is for a pod of its own
            case "get":
                return self._related(node, a)
            case "list" | "watch":
                if _selects(a, "spec.nodeName", node):
                    return ALLOWED
                return _no("can only list/watch podcertificaterequests with nodeName field selector")
        return _no(f"nodes may not {a.verb} podcertificaterequests")


def _selects(a: AuthzAttributes, field: str, value: str) -> bool:
    """The request asks only for objects whose field has this value."""
    try:
        return bool(a.field_selector) and fields.parse(a.field_selector).exact(field) == value
    except ValueError:
        return False


def references(pod: Obj) -> Iterator[tuple[str, str]]:
    """(plural, name) of everything in its namespace that a pod uses."""
    spec = pod.get("spec") or {}
    if spec.get("serviceAccountName"):
        yield "serviceaccounts", spec["serviceAccountName"]
    for ref in spec.get("imagePullSecrets") or ():
        yield "secrets", ref.get("name", "")
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            for source in container.get("envFrom") or ():
                yield from _named(source, {"configMapRef": "configmaps", "secretRef": "secrets"})
            for env in container.get("env") or ():
                source = env.get("valueFrom") or {}
                yield from _named(source, {"configMapKeyRef": "configmaps", "secretKeyRef": "secrets"})
    for volume in spec.get("volumes") or ():
        yield from _of_volume(volume, pod)
    for status_claim in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if status_claim.get("resourceClaimName"):
            yield "resourceclaims", status_claim["resourceClaimName"]
    for claim in spec.get("resourceClaims") or ():
        if claim.get("resourceClaimName"):
            yield "resourceclaims", claim["resourceClaimName"]


def _named(source: Obj, kinds: dict[str, str]) -> Iterator[tuple[str, str]]:
    for field, plural in kinds.items():
        if field in source:
            yield plural, (source[field] or {}).get("name", "")


def _of_volume(volume: Obj, pod: Obj) -> Iterator[tuple[str, str]]:
    if "secret" in volume:
        yield "secrets", volume["secret"].get("secretName", "")
    if "configMap" in volume:
        yield "configmaps", volume["configMap"].get("name", "")
    if "persistentVolumeClaim" in volume:
        yield "persistentvolumeclaims", volume["persistentVolumeClaim"].get("claimName", "")
    if "ephemeral" in volume:
        yield "persistentvolumeclaims", f"{pod['metadata']['name']}-{volume['name']}"
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _named(source, {"configMap": "configmaps", "secret": "secrets"})
    for value in volume.values():
        if isinstance(value, dict):
            for field in ("secretRef", "nodePublishSecretRef"):
                if value.get(field):
                    yield "secrets", value[field].get("name", "")


def _lease(node: str, a: AuthzAttributes) -> Verdict:
    if a.verb not in _VERBS:
        return _no("can only get, create, update, patch, or delete a node lease")
    if a.namespace != "kube-node-lease":
        return _no('can only access leases in the "kube-node-lease" system namespace')
    if a.verb != "create" and a.name != node:
        return _no("can only access node lease with the same name as the requesting node")
    return ALLOWED


def _csi_node(node: str, a: AuthzAttributes) -> Verdict:
    if a.verb not in _VERBS:
        return _no("can only get, create, update, patch, or delete a CSINode")
    if a.subresource:
        return _no("cannot authorize CSINode subresources")
    if a.verb != "create" and a.name != node:
        return _no("can only access CSINode with the same name as the requesting node")
    return ALLOWED


def _resource_slice(node: str, a: AuthzAttributes) -> Verdict:
    if a.subresource:
        return _no("cannot authorize ResourceSlice subresources")
    if a.verb in _VERBS:
        return ALLOWED  # NodeRestriction sees to it that they are the node's own
    if a.verb in ("list", "watch", "deletecollection"):
        if _selects(a, "spec.nodeName", node):
            return ALLOWED
        return _no("can only list/watch/deletecollection resourceslices with nodeName field selector")
    return _no(
        "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, "
        "deletecollection"
    )


def _node(node: str, a: AuthzAttributes) -> Verdict:
    match a.subresource, a.verb:
        case ("", "create" | "update" | "patch") | ("status", "update" | "patch"):
            return ALLOWED  # NodeRestriction sees to it that it is its own
        case "", ("get" | "list" | "watch"):
            if a.name == node:
                return ALLOWED
            what = f"cannot read '{a.name}'" if a.name else "cannot read all nodes"
            return _no(f"node '{node}' {what}, only its own Node object")
    return NO_OPINION


@cache
def _node_rules() -> tuple[Rule, ...]:
    """The rules of `system:node`."""
    from importlib.resources import files

    import orjson

    packed = orjson.loads((files("berg.apiserver") / "data" / "rbac.json").read_bytes())
    role = next(r for r in packed["cluster-roles"] if r["metadata"]["name"] == "system:node")
    return tuple(Rule(r) for r in role["rules"])
