"""Default roles and rules that are there only while a feature is on.

Source: kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.machinery.status import Obj

_READ = ["get", "list", "watch"]
_CERTIFICATES, _COORDINATION, _INTERNAL = "certificates.k8s.io", "coordination.k8s.io", "internal.apiserver.k8s.io"


def _rule(group: str, plural: str, *verbs: str, names: list[str] | None = None) -> Obj:
    rule: Obj = {"apiGroups": [group], "resources": [plural], "verbs": list(verbs)}
    return rule | ({"resourceNames": names} if names else {})


_EVENTS: Obj = {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]}
NODE_RULES = {
    "ClusterTrustBundle": [_rule(_CERTIFICATES, "clustertrustbundles", *_READ)],
    "PodCertificateRequest": [_rule(_CERTIFICATES, "podcertificaterequests", *_READ, "create")],
}
"""gate → what it adds to `system:node`"""
_CONTROLLERS: dict[str, tuple[str, list[Obj]]] = {
    "PodCertificateRequest": (
        "podcertificaterequestcleaner",
        [_rule(_CERTIFICATES, "podcertificaterequests", *_READ, "delete")],
    ),
    "ClusterTrustBundle": (
        "kube-apiserver-serving-clustertrustbundle-publisher",
        [
            _rule(_CERTIFICATES, "signers", "attest", names=["kubernetes.io/kube-apiserver-serving"]),
            _rule(_CERTIFICATES, "clustertrustbundles", "create", "update", "delete", "list", "watch"),
            _EVENTS,
        ],
    ),
    "StorageVersionAPI": (
        "storage-version-garbage-collector",
        [
            _rule(_COORDINATION, "leases", *_READ),
            _rule(_INTERNAL, "storageversions", *_READ, "patch", "update", "delete"),
            _rule(_INTERNAL, "storageversions/status", "get", "patch", "update"),
        ],
    ),
    "StorageVersionMigrator": (
        "storage-version-migrator-controller",
        [
            _rule("*", "*", "list", "create", "patch"),
            _rule("apiextensions.k8s.io", "customresourcedefinitions", "get"),
            _rule("apiextensions.k8s.io", "customresourcedefinitions/status", "patch"),
            _rule("storagemigration.k8s.io", "storageversionmigrations/status", "update"),
        ],
    ),
}
"""gate → a controller's service account, and what it may do"""
_DISCOVERY = "system:cluster-trust-bundle-discovery"


def _metadata(name: str) -> Obj:
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    return {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": annotations}


def _pair(name: str, rules: list[Obj], subject: Obj) -> tuple[Obj, Obj]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    role: Obj = {"kind": "ClusterRole", "metadata": _metadata(name), "rules": rules}
    binding = {"kind": "ClusterRoleBinding", "metadata": _metadata(name), "roleRef": reference, "subjects": [subject]}
    return role, binding


def gated(enabled: Callable[[str], bool]) -> list[Obj]:
    """ClusterRoles and ClusterRoleBindings."""
    found: list[Obj] = []
    for gate, (account, rules) in _CONTROLLERS.items():
        if enabled(gate):
            subject = {"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}
            found += _pair(f"system:controller:{account}", rules, subject)
    if enabled("ClusterTrustBundle"):
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts"}
        found += _pair(_DISCOVERY, [_rule(_CERTIFICATES, "clustertrustbundles", *_READ)], group)
    return found


def node_rules(enabled: Callable[[str], bool]) -> list[Obj]:
    """What `system:node` may do beside what is in the data."""
    return [rule for gate, rules in NODE_RULES.items() if enabled(gate) for rule in rules]
