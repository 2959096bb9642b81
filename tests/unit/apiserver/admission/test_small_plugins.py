import pytest

import berg.apiserver.kinds  # noqa: F401
from berg.apiserver.admission import configuration
from berg.apiserver.admission.chain import AdmissionChain
from berg.apiserver.admission.interface import DELETE, UPDATE
from berg.apiserver.http.message import User
from berg.machinery.status import ApiError

from .fakes import FakeApi, attributes, namespace, pod


def only(name, *objects, config=None, **labels):
    api = FakeApi(namespace(**labels), *objects)
    chain = AdmissionChain(api, enable=[name], config={name: config} if config else None)
    chain.plugins = [p for p in chain.plugins if p.name == name]
    return chain


async def run(chain, a):
    await chain.run_mutating(a)
    await chain.run_validating(a)
    return a.obj


async def refused(chain, a):
    with pytest.raises(ApiError) as caught:
        await run(chain, a)
    return caught.value.message


def claim(**spec):
    return {"metadata": {"name": "c", "namespace": "ns"}, "spec": spec}


def storage_class(name, *, default=True, **more):
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    meta = {"name": name, "annotations": annotations, "creationTimestamp": more.pop("made", "2026-01-01T00:00:00Z")}
    return "storageclasses.storage.k8s.io", {"metadata": meta, "provisioner": "p", **more}


async def test_default_storage_class():
    chain = only("DefaultStorageClass", storage_class("old"), storage_class("new", made="2026-02-01T00:00:00Z"))
    obj = await run(chain, attributes("persistentvolumeclaims", claim()))
    assert obj["spec"]["storageClassName"] == "new"
    obj = await run(chain, attributes("persistentvolumeclaims", claim(storageClassName="")))
    assert obj["spec"]["storageClassName"] == ""


async def test_claims_are_protected_while_in_use():
    obj = await run(only("StorageObjectInUseProtection"), attributes("persistentvolumeclaims", claim()))
    assert obj["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]


async def test_growing_a_claim_needs_a_class_that_can():
    def sized(size):
        return claim(storageClassName="s", resources={"requests": {"storage": size}}) | {"status": {"phase": "Bound"}}

    a = {"old": sized("1Gi"), "operation": UPDATE}
    message = await refused(
        only("PersistentVolumeClaimResize", storage_class("s")), attributes("persistentvolumeclaims", sized("2Gi"), **a)
    )
    assert message == (
        'persistentvolumeclaims "c" is forbidden: only dynamically provisioned pvc can be resized and the storageclass '
        "that provisions the pvc must support resize"
    )
    able = storage_class("s", allowVolumeExpansion=True)
    await run(only("PersistentVolumeClaimResize", able), attributes("persistentvolumeclaims", sized("2Gi"), **a))


async def test_runtime_class():
    node = "runtimeclasses.node.k8s.io"
    scheduling = {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}
    body = {
        "metadata": {"name": "r"},
        "handler": "h",
        "overhead": {"podFixed": {"cpu": "10m"}},
        "scheduling": scheduling,
    }
    obj = await run(only("RuntimeClass", (node, body)), attributes("pods", pod(runtimeClassName="r")))
    assert obj["spec"]["overhead"] == {"cpu": "10m"}
    assert obj["spec"]["nodeSelector"] == {"a": "b"}
    assert obj["spec"]["tolerations"] == [{"key": "k", "operator": "Exists"}]
    message = await refused(only("RuntimeClass"), attributes("pods", pod(runtimeClassName="r")))
    assert message == 'pods "web" is forbidden: pod rejected: RuntimeClass "r" not found'
    message = await refused(
        only("RuntimeClass", (node, body)), attributes("pods", pod(runtimeClassName="r", nodeSelector={"a": "c"}))
    )
    assert message.startswith('pods "web" is forbidden: conflict: ')


async def test_default_ingress_class():
    meta = {"name": "i", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}
    chain = only("DefaultIngressClass", ("ingressclasses.networking.k8s.io", {"metadata": meta, "spec": {}}))
    ingress = {"metadata": {"name": "x", "namespace": "ns"}, "spec": {}}
    obj = await run(chain, attributes("ingresses.networking.k8s.io", ingress))
    assert obj["spec"]["ingressClassName"] == "i"


async def test_tolerations():
    obj = await run(only("DefaultTolerationSeconds"), attributes("pods", pod()))
    assert [(t["key"], t["tolerationSeconds"]) for t in obj["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]
    containers = [{"name": "c", "image": "i", "resources": {"requests": {"example.com/gpu": "1"}}}]
    obj = await run(only("ExtendedResourceToleration"), attributes("pods", pod(containers=containers)))
    assert obj["spec"]["tolerations"] == [{"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


async def test_always_pull_images():
    containers = [{"name": "c", "image": "i", "imagePullPolicy": "Never"}]
    obj = await run(only("AlwaysPullImages"), attributes("pods", pod(containers=containers)))
    assert obj["spec"]["containers"][0]["imagePullPolicy"] == "Always"


async def test_new_nodes_are_tainted():
    obj = await run(only("TaintNodesByCondition"), attributes("nodes", {"metadata": {"name": "n"}, "spec": {}}))
    assert obj["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]


async def test_pod_node_selector():
    where = (
        "namespaces",
        {"metadata": {"name": "ns", "annotations": {"scheduler.alpha.kubernetes.io/node-selector": "a=b"}}},
    )
    obj = await run(only("PodNodeSelector", where), attributes("pods", pod()))
    assert obj["spec"]["nodeSelector"] == {"a": "b"}
    message = await refused(only("PodNodeSelector", where), attributes("pods", pod(nodeSelector={"a": "c"})))
    assert (
        message == 'pods "web" is forbidden: pod node label selector conflicts with its namespace node label selector'
    )


async def test_external_ips():
    service = {"metadata": {"name": "s", "namespace": "ns"}, "spec": {"externalIPs": ["1.2.3.4"]}}
    message = await refused(only("DenyServiceExternalIPs"), attributes("services", service))
    assert message == 'services "s" is forbidden: Use of external IPs is denied by admission control'


async def test_certificates_of_system_masters():
    import base64

    from berg.machinery.pki import new_csr

    csr, _ = new_csr("eve", ["system:masters"])
    spec = {"signerName": "kubernetes.io/kube-apiserver-client", "request": base64.b64encode(csr).decode()}
    message = await refused(
        only("CertificateSubjectRestriction"),
        attributes("certificatesigningrequests.certificates.k8s.io", {"metadata": {"name": "c"}, "spec": spec}),
    )
    assert message.endswith(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    )


async def test_event_rate_limit():
    config = {"limits": [{"type": "Namespace", "qps": 1, "burst": 2}]}
    chain = only("EventRateLimit", config=config)
    for _ in range(2):
        await run(chain, attributes("events", {"metadata": {"name": "e", "namespace": "ns"}}))
    with pytest.raises(ApiError) as caught:
        await run(chain, attributes("events", {"metadata": {"name": "e", "namespace": "ns"}}))
    assert caught.value.code == 429
    assert caught.value.message == "Too many requests: limit reached on type Namespace for key ns"
    await chain.plugins[0].api.clock.advance(1)
    await run(chain, attributes("events", {"metadata": {"name": "e", "namespace": "ns"}}))


async def test_blocking_owners_must_be_within_reach():
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "blockOwnerDeletion": True}
    obj = pod()
    obj["metadata"]["ownerReferences"] = [owner]
    a = attributes("pods", obj, user=User("eve"))
    message = await refused(only("OwnerReferencesPermissionEnforcement"), a)
    assert (
        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on" in message
    )


async def test_owners_that_nobody_knows():
    owner = {"apiVersion": "nope/v1", "kind": "Nope", "name": "d", "uid": "u", "blockOwnerDeletion": True}
    obj = pod()
    obj["metadata"]["ownerReferences"] = [owner]
    plugins = only("OwnerReferencesPermissionEnforcement")
    message = await refused(plugins, attributes("pods", obj, user=User("eve")))
    assert message.endswith(
        "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion nope/v1 Kind Nope: "
        'no matches for kind "Nope" in version "nope/v1"'
    )
    plugins.plugins[0].api.allowed.add(("eve", "update", ""))  # the finalizers of anything
    await run(plugins, attributes("pods", obj, user=User("eve")))


async def test_node_selectors_that_are_none():
    annotations = {"scheduler.alpha.kubernetes.io/node-selector": "a"}
    where = ("namespaces", {"metadata": {"name": "ns", "annotations": annotations}})
    assert await refused(only("PodNodeSelector", where), attributes("pods", pod())) == "invalid selector: [a]"


async def test_scopes_that_a_quota_has_to_cover():
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["high", "higher"]}
    config = {"limitedResources": [{"resource": "pods", "matchScopes": [scope]}]}
    a = attributes("pods", pod(priorityClassName="high"))
    message = await refused(only("ResourceQuota", config=config), a)
    assert message == "insufficient quota to match these scopes: [{PriorityClass In [high higher]}]"


async def test_pods_grow_no_larger_than_their_nodes():
    def sized(cpu, generation):
        container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}
        obj = pod(containers=[container], nodeName="n")
        obj["metadata"]["generation"] = generation
        return obj

    def resized(cpu, generation=2):
        return attributes("pods", sized(cpu, generation), sized("1", 1), operation=UPDATE, subresource="resize")

    node = {"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "512Mi"}}}
    message = await refused(only("PodResizeValidator", ("nodes", node)), resized("2500m"))
    assert message == (
        'pods "web" is forbidden: node didn\'t have enough allocatable resources: cpu, requested: 2500, '
        "allocatable: 2000; memory, requested: 1073741824, allocatable: 536870912"
    )
    node["status"]["allocatable"]["memory"] = "2Gi"
    await run(only("PodResizeValidator", ("nodes", node)), resized("1500m"))
    await run(only("PodResizeValidator"), resized("1", generation=1))
    assert (await refused(only("PodResizeValidator"), resized("1500m"))).endswith('node "n" not found')
    node["metadata"]["labels"] = {"kubernetes.io/os": "windows"}
    with pytest.raises(ApiError) as caught:
        await run(only("PodResizeValidator", ("nodes", node)), resized("1500m"))
    assert caught.value.details["causes"] == [{"reason": "UnsupportedPlatform"}]


async def test_deletion_is_no_business_of_most():
    chain = AdmissionChain(FakeApi(namespace()))
    await run(chain, attributes("pods", None, pod(), operation=DELETE))


def test_plugins_are_configured_by_a_file(tmp_path):
    (tmp_path / "events.yaml").write_text("kind: Configuration\nlimits: [{type: Server, qps: 1, burst: 1}]\n")
    file = tmp_path / "admission.yaml"
    file.write_text(
        """
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- {name: EventRateLimit, path: events.yaml}
- name: PodSecurity
  configuration: {defaults: {enforce: baseline}}
"""
    )
    found = configuration.load(str(file))
    assert found["PodSecurity"]["defaults"] == {"enforce": "baseline"}
    assert found["EventRateLimit"]["limits"][0]["type"] == "Server"
    assert configuration.load("") == {}
    file.write_text("kind: Something\n")
    with pytest.raises(configuration.BadConfiguration):
        configuration.load(str(file))
