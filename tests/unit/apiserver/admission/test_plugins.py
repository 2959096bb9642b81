import pytest

import berg.apiserver.kinds  # noqa: F401
from berg.apiserver.admission.chain import AdmissionChain, UnknownPlugin
from berg.apiserver.admission.interface import DELETE, UPDATE
from berg.apiserver.http.message import User
from berg.machinery.status import ApiError

from .fakes import FakeApi, attributes, namespace, pod

ACCOUNT = ("serviceaccounts", {"metadata": {"name": "default", "namespace": "ns"}, "imagePullSecrets": [{"name": "p"}]})


async def refusal(chain: AdmissionChain, a) -> str:
    with pytest.raises(ApiError) as caught:
        await chain.run_mutating(a)
        await chain.run_validating(a)
    return caught.value.message


def test_unknown_plugin_is_named():
    with pytest.raises(UnknownPlugin, match="Nonesuch"):
        AdmissionChain(FakeApi(), enable=["Nonesuch"])


async def test_a_pod_gets_what_every_pod_gets():
    chain = AdmissionChain(FakeApi(namespace(), ACCOUNT))
    p = pod()
    a = attributes("pods", p)
    await chain.run_mutating(a)
    await chain.run_validating(a)
    spec = p["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert spec["priority"] == 0 and spec["preemptionPolicy"] == "PreemptLowerPriority"
    assert [t["key"] for t in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert spec["imagePullSecrets"] == [{"name": "p"}]
    [volume] = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert spec["containers"][0]["volumeMounts"] == [
        {
            "name": volume["name"],
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
    ]
    assert volume["projected"]["sources"][0]["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}


async def test_namespaces_that_are_not_there_or_going():
    api = FakeApi(ACCOUNT)
    chain = AdmissionChain(api)
    assert await refusal(chain, attributes("configmaps", {"metadata": {"name": "a", "namespace": "ns"}})) == (
        'namespaces "ns" not found'
    )
    api.put("namespaces", {"metadata": {"name": "ns"}, "status": {"phase": "Terminating"}})
    a = attributes("configmaps", {"metadata": {"name": "a", "namespace": "ns"}})
    with pytest.raises(ApiError) as caught:
        await chain.run_mutating(a)
    assert caught.value.message == (
        'configmaps "a" is forbidden: unable to create new content in namespace ns because it is being terminated'
    )
    assert caught.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    a = attributes("namespaces", None, {"metadata": {"name": "kube-system"}}, operation=DELETE)
    assert await refusal(chain, a) == 'namespaces "kube-system" is forbidden: this namespace may not be deleted'


LIMITS = (
    "limitranges",
    {
        "metadata": {"name": "l", "namespace": "ns"},
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "max": {"cpu": "1"},
                    "default": {"cpu": "500m"},
                    "defaultRequest": {"cpu": "100m"},
                }
            ]
        },
    },
)


async def test_limit_ranges_fill_in_and_refuse():
    chain = AdmissionChain(FakeApi(namespace(), ACCOUNT, LIMITS))
    p = pod()
    await chain.run_mutating(attributes("pods", p))
    assert p["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    assert p["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    )
    big = pod(containers=[{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}])
    assert await refusal(chain, attributes("pods", big)) == (
        'pods "web" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
    )


def quota(hard, used=None, **spec):
    status = {"hard": hard, "used": used if used is not None else dict.fromkeys(hard, "0")}
    return "resourcequotas", {
        "metadata": {"name": "q", "namespace": "ns"},
        "spec": {"hard": hard, **spec},
        "status": status,
    }


async def test_quota_books_and_refuses():
    api = FakeApi(namespace(), ACCOUNT, quota({"pods": "2", "requests.cpu": "1"}))
    chain = AdmissionChain(api)

    def asking(name: str, cpu: str):
        resources = {"requests": {"cpu": cpu}}
        return attributes("pods", pod(name, containers=[{"name": "c", "image": "i", "resources": resources}]))

    await chain.run_validating(asking("a", "600m"))
    booked = api.store["resourcequotas", "ns", "q"]["status"]["used"]
    assert booked == {"pods": "1", "requests.cpu": "600m"}
    assert await refusal(chain, asking("b", "500m")) == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, '
        "limited: requests.cpu=1"
    )
    assert await refusal(chain, attributes("pods", pod("c"))) == (
        'pods "c" is forbidden: failed quota: q: must specify requests.cpu for: c'
    )


async def test_quota_counts_objects_and_respects_scopes():
    scoped = quota({"pods": "0"}, scopes=["BestEffort"])
    api = FakeApi(namespace(), ACCOUNT, scoped)
    chain = AdmissionChain(api)
    assert "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0" in await refusal(
        chain, attributes("pods", pod())
    )
    resources = {"requests": {"cpu": "1"}}
    await chain.run_validating(
        attributes("pods", pod(containers=[{"name": "c", "image": "i", "resources": resources}]))
    )
    api.put(*quota({"count/configmaps": "1"}, {"count/configmaps": "1"}))
    assert "exceeded quota: q, requested: count/configmaps=1" in await refusal(
        chain, attributes("configmaps", {"metadata": {"name": "a", "namespace": "ns"}})
    )


async def test_quota_retries_when_somebody_else_booked():
    api = FakeApi(namespace(), ACCOUNT, quota({"pods": "5"}))
    chain = AdmissionChain(api)
    real, calls = api.update, []

    async def racing(r, ns, obj, subresource=""):
        if not calls:
            calls.append(1)
            other = api.store["resourcequotas", "ns", "q"]
            other["status"]["used"] = {"pods": "3"}
            api.put("resourcequotas", other)
        return await real(r, ns, obj, subresource)

    api.update = racing
    await chain.run_validating(attributes("pods", pod()))
    assert api.store["resourcequotas", "ns", "q"]["status"]["used"] == {"pods": "4"}


async def test_pod_security_enforces_and_warns():
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    api = FakeApi(("namespaces", {"metadata": {"name": "ns", "labels": level}}), ACCOUNT)
    chain = AdmissionChain(api)
    assert await refusal(chain, attributes("pods", pod())) == (
        'pods "web" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false '
        '(container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities '
        '(container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container '
        '"c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )
    good = pod(
        securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        containers=[
            {
                "name": "c",
                "image": "i",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    )
    await chain.run_validating(attributes("pods", good))
    a = attributes("replicasets.apps", {"metadata": {"name": "r", "namespace": "ns"}, "spec": {"template": pod()}})
    await chain.run_validating(a)
    assert a.warnings and a.warnings[0].startswith('would violate PodSecurity "restricted:latest": ')


async def test_a_stricter_namespace_warns_of_its_pods():
    api = FakeApi(namespace(), ACCOUNT, ("pods", pod("b", hostNetwork=True)), ("pods", pod("a", hostNetwork=True)))
    chain = AdmissionChain(api)
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    new = {"metadata": {"name": "ns", "labels": labels}}
    a = attributes("namespaces", new, {"metadata": {"name": "ns"}}, operation=UPDATE)
    await chain.run_validating(a)
    assert a.warnings == [
        'existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 1 other pod): host namespaces",
    ]
    new["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "x"
    a = attributes("namespaces", new, {"metadata": {"name": "ns"}}, operation=UPDATE)
    assert "must be one of privileged, baseline, restricted" in await refusal(chain, a)


NODE = User("system:node:n1", groups=("system:nodes",))


@pytest.mark.parametrize(
    ("kind", "obj", "old", "more", "message"),
    [
        ("nodes", {"metadata": {"name": "n2"}}, None, {}, 'node "n1" is not allowed to modify node "n2"'),
        (
            "nodes",
            {"metadata": {"name": "n1", "labels": {"node-restriction.kubernetes.io/a": "b"}}},
            None,
            {},
            'node "n1" is not allowed to set the following labels: node-restriction.kubernetes.io/a',
        ),
        (
            "nodes",
            {"metadata": {"name": "n1"}, "spec": {"taints": []}},
            {"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "a"}]}},
            {"operation": UPDATE},
            'node "n1" is not allowed to modify taints',
        ),
        (
            "pods",
            pod(),
            None,
            {},
            'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods',
        ),
        (
            "pods",
            pod(nodeName="n2"),
            pod(nodeName="n2"),
            {"operation": UPDATE, "subresource": "status"},
            'node "n1" can only update pod status for pods with spec.nodeName set to itself',
        ),
        (
            "leases.coordination.k8s.io",
            {"metadata": {"name": "n1", "namespace": "kube-system"}},
            None,
            {},
            'can only access leases in the "kube-node-lease" system namespace',
        ),
    ],
)
async def test_kubelets_are_kept_to_themselves(kind, obj, old, more, message):
    chain = AdmissionChain(FakeApi(namespace(), namespace("kube-system"), ACCOUNT))
    assert message in await refusal(chain, attributes(kind, obj, old, user=NODE, **more))


async def test_priority_classes():
    high = {"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}
    api = FakeApi(namespace(), ACCOUNT, ("priorityclasses.scheduling.k8s.io", high))
    chain = AdmissionChain(api)
    p = pod(priorityClassName="high")
    await chain.run_mutating(attributes("pods", p))
    assert (p["spec"]["priority"], p["spec"]["preemptionPolicy"]) == (7, "Never")
    assert await refusal(chain, attributes("pods", pod(priorityClassName="none"))) == (
        'pods "web" is forbidden: no PriorityClass with name none was found'
    )


async def test_approving_needs_the_signer():
    api = FakeApi()
    chain = AdmissionChain(api)
    old = {"metadata": {"name": "c"}, "spec": {"signerName": "example.com/s"}}
    a = attributes("certificatesigningrequests.certificates.k8s.io", old, old, operation=UPDATE, subresource="approval")
    assert 'user not permitted to approve requests with signerName "example.com/s"' in await refusal(chain, a)
    api.allowed.add(("alice", "approve", "example.com/*"))
    await chain.run_validating(a)
