"""Who may write which part of a resource claim's status; v1beta1 claims are the same claims. Texts are upstream's
answers (v1.36.2)."""

import pytest

from berg.apiserver.http.message import User
from berg.apiserver.registry import conversion
from berg.machinery import bundle

RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "/apis/resource.k8s.io"
CLAIMS = f"{GROUP}/v1/namespaces/default/resourceclaims"
BINDING = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/binding"], "verbs": ["update"]}
NODE = "authentication.kubernetes.io/node-name"
CLAIM = {
    "metadata": {"name": "c"},
    "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
}
DEVICE = {"driver": "a.b", "pool": "p", "device": "d"}
ON_N = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
ALLOCATION = {
    "devices": {"results": [{"request": "r", **DEVICE}]},
    "nodeSelector": {"nodeSelectorTerms": [ON_N]},
}


def driver(verb):
    rule = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/driver"], "resourceNames": ["a.b"]}
    return {**rule, "verbs": [verb]}


def cannot(part, asked, verb, said, resource, where, name=""):
    return (
        f'{part} requires resource="resourceclaims/{asked}", verb="{verb}" permission: resourceclaims.resource.k8s.io '
        f'{name}is forbidden: User "bob" cannot {said} resource "resourceclaims/{resource}" in API group '
        f'"resource.k8s.io" {where}'
    )


NOT_BOUND = "status.allocation: Forbidden: changing status.allocation or " + cannot(
    "status.reservedFor", "binding", "update", "update", "binding", "at the cluster scope"
)
NOT_THE_DRIVER = "status.devices: Forbidden: changing " + cannot(
    "status.devices",
    "driver",
    "[arbitrary-node:update]",
    "arbitrary-node:update",
    "driver",
    'in the namespace "default"',
    '"a.b" ',
)


async def may(served, name, *rules):
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    await served.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
    subjects = [{"kind": "User", "name": name}]
    binding = {"metadata": {"name": name}, "roleRef": ref, "subjects": subjects}
    await served.create(f"{RBAC}/clusterrolebindings", binding)


async def written(served, status, user):
    claim = {**await served.get(f"{CLAIMS}/c"), "status": status}
    code, answer = await served.ask("PUT", f"{CLAIMS}/c/status?dryRun=All", claim, user=user)
    if code == 200:
        return []
    return [f"{c['field']}: {c['message']}" for c in answer["details"]["causes"]]


STATUS_ONLY = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/status"], "verbs": ["*"]}


@pytest.mark.parametrize(
    ("rules", "status", "faults"),
    [
        ([], {}, []),
        ([], {"allocation": ALLOCATION}, [NOT_BOUND]),
        ([], {"allocation": ALLOCATION, "devices": [DEVICE]}, [NOT_BOUND, NOT_THE_DRIVER]),
        ([BINDING], {"allocation": ALLOCATION}, []),
        ([BINDING], {"allocation": ALLOCATION, "devices": [DEVICE]}, [NOT_THE_DRIVER]),
        ([BINDING, driver("arbitrary-node:update")], {"allocation": ALLOCATION, "devices": [DEVICE]}, []),
        (
            [BINDING, driver("arbitrary-node:patch")],
            {"allocation": ALLOCATION, "devices": [DEVICE]},
            [NOT_THE_DRIVER],
        ),
    ],
)
async def test_parts_of_the_status_need_permissions_of_their_own(served, rules, status, faults):
    await served.create(CLAIMS, CLAIM)
    await may(served, "bob", STATUS_ONLY, *rules)
    assert await written(served, status, User("bob", groups=("system:authenticated",))) == faults


async def test_a_driver_on_the_claims_node_needs_only_that_node(served):
    await served.create(CLAIMS, CLAIM)
    name = "system:serviceaccount:default:drv"
    await may(served, name, STATUS_ONLY, BINDING, driver("associated-node:update"))
    status = {"allocation": ALLOCATION, "devices": [DEVICE]}

    def on(node):
        return User(name, groups=("system:authenticated",), extra={NODE: [node]})

    assert await written(served, status, on("n")) == []
    assert len(await written(served, status, on("m"))) == 1


def test_v1beta1_has_the_request_flat():
    versions = {r.version: r for r in bundle.resources(disabled=True) if r.plural == "resourceclaims"}
    new, old = versions["v1"], versions["v1beta1"]
    flat = {"name": "r", "deviceClassName": "gpu", "count": 2}
    several = {"name": "s", "deviceClassName": "", "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]}
    claim = {"spec": {"devices": {"requests": [dict(flat), dict(several)]}}}
    requests = conversion.convert(claim, old, new)["spec"]["devices"]["requests"]
    assert requests[0] == {"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}
    assert "exactly" not in requests[1]
    assert conversion.convert(claim, new, old)["spec"]["devices"]["requests"] == [flat, several]


async def test_admin_access_is_for_namespaces_that_say_so(served):
    wanted = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "adminAccess": True}}]}}
    claim = {"metadata": {"name": "c"}, "spec": wanted}
    code, answer = await served.ask("POST", CLAIMS, claim)
    assert code == 422
    assert answer["details"]["causes"][0]["field"] == "spec.devices.requests[0].adminAccess"
    labels = {"resource.kubernetes.io/admin-access": "true"}
    await served.create("/api/v1/namespaces", {"metadata": {"name": "admin", "labels": labels}})
    await served.create(CLAIMS.replace("default", "admin"), claim)
