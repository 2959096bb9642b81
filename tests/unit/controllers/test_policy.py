import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from controllers_world import World

from berg.controllers import hpa_behavior as behavior
from berg.controllers.bootstrap import signature
from berg.controllers.manager import UnknownController, chosen
from berg.machinery import pki


def pods(world: World, count: int, ready: int, labels: dict[str, str], owner: dict[str, Any] | None = None) -> None:
    for i in range(count):
        md: dict[str, Any] = {"name": f"p{i}", "labels": labels}
        if owner is not None:
            md["ownerReferences"] = [{**owner, "controller": True}]
        world.create("pods", {"metadata": md, "spec": {}})
        world.set_pod(f"p{i}", ready=i < ready)


def budget(world: World, **spec: Any) -> None:
    world.create(
        "poddisruptionbudgets.policy",
        {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, **spec}},
    )


def allowed(world: World) -> tuple[int, int, int, int]:
    s = world.get("poddisruptionbudgets.policy", "b")["status"]
    return s["disruptionsAllowed"], s["currentHealthy"], s["desiredHealthy"], s["expectedPods"]


async def test_a_budget_by_number(world: World):
    pods(world, 4, 3, {"a": "b"})
    budget(world, minAvailable=2)
    await world.run("disruption-controller")
    assert allowed(world) == (1, 3, 2, 4)
    (c,) = world.get("poddisruptionbudgets.policy", "b")["status"]["conditions"]
    assert (c["type"], c["status"], c["reason"]) == ("DisruptionAllowed", "True", "SufficientPods")
    world.set_pod("p0", ready=False)
    await world.settle()
    assert allowed(world) == (0, 2, 2, 4)


async def test_a_budget_by_percentage_counts_what_should_be(world: World):
    rs = world.create("replicasets.apps", {"metadata": {"name": "rs"}, "spec": {"replicas": 10}})
    ref = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": rs["metadata"]["uid"]}
    pods(world, 9, 9, {"a": "b"}, ref)
    budget(world, maxUnavailable="30%")
    await world.run("disruption-controller")
    assert allowed(world) == (2, 9, 7, 10)


async def test_a_pod_being_evicted_is_not_healthy(world: World):
    pods(world, 3, 3, {"a": "b"})
    budget(world, minAvailable=2)
    await world.run("disruption-controller")
    assert allowed(world)[0] == 1
    now = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"disruptedPods": {"p0": now}, "disruptionsAllowed": 0}
    world.change("poddisruptionbudgets.policy", "b", {"status": status})
    await world.settle()
    assert allowed(world)[:2] == (0, 2)
    await world.clock.advance(125)
    await world.settle()
    assert allowed(world)[:2] == (1, 3)


async def test_a_quota_counts_and_gives_back(world: World):
    hard = {"pods": "5", "requests.cpu": "2", "count/configmaps": "3", "services.nodeports": "1"}
    world.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    resources = {"requests": {"cpu": "300m"}}
    init = {"name": "i", "resources": {"requests": {"cpu": "1"}}}
    spec = {"containers": [{"name": "c", "resources": resources}]}
    world.create("pods", {"metadata": {"name": "a"}, "spec": spec})
    world.create("pods", {"metadata": {"name": "b"}, "spec": {**spec, "initContainers": [init]}})
    world.create("pods", {"metadata": {"name": "done"}, "spec": spec, "status": {"phase": "Succeeded"}})
    world.create("configmaps", {"metadata": {"name": "x"}})
    world.create("services", {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 1}]}})
    await world.run("resourcequota-controller")
    used = world.get("resourcequotas", "q")["status"]["used"]
    assert used == {"pods": "2", "requests.cpu": "1300m", "count/configmaps": "1", "services.nodeports": "1"}
    world.delete("pods", "b")
    await world.settle()
    assert world.get("resourcequotas", "q")["status"]["used"]["requests.cpu"] == "300m"


async def test_a_quota_for_one_priority_only(world: World):
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}
    world.create(
        "resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}, "scopeSelector": selector}}
    )
    for name, priority in (("a", "high"), ("b", "low")):
        world.create("pods", {"metadata": {"name": name}, "spec": {"priorityClassName": priority, "containers": []}})
    await world.run("resourcequota-controller")
    assert world.get("resourcequotas", "q")["status"]["used"] == {"pods": "1"}


async def test_roles_are_aggregated(world: World):
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    selectors = [{"matchLabels": {"to-view": "true"}}]
    name = "clusterroles.rbac.authorization.k8s.io"
    world.create(
        name, {"metadata": {"name": "view"}, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": []}
    )
    world.create(name, {"metadata": {"name": "more", "labels": {"to-view": "true"}}, "rules": [rule]})
    await world.run("clusterrole-aggregation-controller")
    assert world.get(name, "view", None)["rules"] == [rule]


async def test_every_namespace_has_its_account_and_the_ca(world: World):
    world.config.root_ca_data = b"CA"
    world.create("namespaces", {"metadata": {"name": "t"}, "status": {"phase": "Active"}})
    await world.run("serviceaccount-controller", "root-ca-certificate-publisher-controller")
    assert world.get("serviceaccounts", "default", "t")
    assert world.get("configmaps", "kube-root-ca.crt", "t")["data"] == {"ca.crt": "CA"}
    world.change("configmaps", "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "t")
    world.delete("serviceaccounts", "default", "t")
    await world.settle()
    assert world.get("configmaps", "kube-root-ca.crt", "t")["data"] == {"ca.crt": "CA"}
    assert world.get("serviceaccounts", "default", "t")


def csr(world: World, signer: str, common_name: str, organizations: list[str], usages: list[str], **spec: Any) -> str:
    request, _ = pki.new_csr(common_name, organizations)
    body = {
        "signerName": f"kubernetes.io/{signer}",
        "request": base64.b64encode(request).decode(),
        "usages": usages,
        "username": "system:bootstrap:x",
        **spec,
    }
    name = "certificatesigningrequests.certificates.k8s.io"
    world.create(name, {"metadata": {"name": "r"}, "spec": body, "status": {}})
    return name


async def test_a_kubelets_request_is_approved_signed_and_cleaned_up(world: World, tmp_path: Path):
    ca = pki.CertificateAuthority.create("ca")
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    (tmp_path / "ca.key").write_bytes(pki.key_pem(ca._key))
    world.config.cluster_signing_cert_file = str(tmp_path / "ca.crt")
    world.config.cluster_signing_key_file = str(tmp_path / "ca.key")
    asked: list[Any] = []

    def allow(method: str, path: str, doc: Any) -> None:
        if path.endswith("subjectaccessreviews"):
            asked.append(doc["spec"])
            doc["status"] = {"allowed": True}

    world.api.answer_hook = allow
    usages = ["digital signature", "client auth"]
    name = csr(
        world, "kube-apiserver-client-kubelet", "system:node:n1", ["system:nodes"], usages, expirationSeconds=3600
    )
    await world.run(
        "certificatesigningrequest-approving-controller",
        "certificatesigningrequest-signing-controller",
        "certificatesigningrequest-cleaner-controller",
    )
    found = world.get(name, "r", None)
    (c,) = found["status"]["conditions"]
    assert (c["type"], c["reason"]) == ("Approved", "AutoApproved")
    assert asked[0]["resourceAttributes"]["subresource"] == "nodeclient"
    from cryptography import x509

    signed = x509.load_pem_x509_certificate(base64.b64decode(found["status"]["certificate"]))
    assert signed.subject.rfc4514_string() in ("CN=system:node:n1,O=system:nodes", "O=system:nodes,CN=system:node:n1")
    assert signed.not_valid_after_utc - world.clock.now() <= timedelta(seconds=3600)
    signed.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
    await world.clock.advance(3700)
    await world.settle()
    assert world.all(name) == []


async def test_a_request_that_does_not_fit_its_signer_fails(world: World, tmp_path: Path):
    ca = pki.CertificateAuthority.create("ca")
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    (tmp_path / "ca.key").write_bytes(pki.key_pem(ca._key))
    world.config.cluster_signing_cert_file = str(tmp_path / "ca.crt")
    world.config.cluster_signing_key_file = str(tmp_path / "ca.key")
    name = csr(world, "kube-apiserver-client-kubelet", "me", ["admins"], ["client auth"])
    world.change(name, "r", {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}, None)
    await world.run("certificatesigningrequest-signing-controller")
    conditions = world.get(name, "r", None)["status"]["conditions"]
    assert conditions[-1]["reason"] == "SignerValidationFailure"
    assert conditions[-1]["message"] == "subject organization is not system:nodes"
    assert "certificate" not in world.get(name, "r", None)["status"]


@pytest.mark.filterwarnings("ignore:The HMAC key")
def test_a_bootstrap_signature_is_a_detached_jws():
    import jwt

    text = signature("content", "abcdef", "0123456789abcdef")
    header, empty, mac = text.split(".")
    assert empty == ""
    payload = base64.urlsafe_b64encode(b"content").rstrip(b"=").decode()
    whole = jwt.api_jws.PyJWS().decode(f"{header}.{payload}.{mac}", "abcdef.0123456789abcdef", algorithms=["HS256"])
    assert whole == b"content"
    assert jwt.get_unverified_header(f"{header}.{payload}.{mac}") == {"alg": "HS256", "kid": "abcdef"}


def test_which_controllers():
    assert chosen(["job-controller"]) == ["job-controller"]
    assert "bootstrap-signer-controller" not in chosen(["*"])
    assert "bootstrap-signer-controller" in chosen(["*", "bootstrap-signer-controller"])
    assert "job-controller" not in chosen(["*", "-job-controller"])
    with pytest.raises(UnknownController, match="is not in the list of known controllers"):
        chosen(["*", "-jobs"])


def hpa(**b: Any) -> dict[str, Any]:
    return {"spec": {"minReplicas": 1, "maxReplicas": 100, "behavior": b}}


def test_scaling_up_at_most_doubles_or_adds_four():
    found = behavior.bound(hpa(), behavior.Past(), 3, 50, 0.0, 300)
    assert (found.replicas, found.limited[1]) == (7, "ScaleUpLimit")
    assert behavior.bound(hpa(), behavior.Past(), 10, 50, 0.0, 300).replicas == 20


def test_what_was_added_lately_counts_against_the_limit():
    past = behavior.Past()
    past.note_scale(0.0, 10, 20)
    assert behavior.bound(hpa(), past, 20, 50, 5.0, 300).replicas == 20
    assert behavior.bound(hpa(), past, 20, 50, 16.0, 300).replicas == 40


def test_scaling_down_waits_for_the_highest_recent_recommendation():
    past = behavior.Past()
    assert behavior.bound(hpa(), past, 10, 10, 0.0, 300).replicas == 10
    found = behavior.bound(hpa(), past, 10, 2, 100.0, 300)
    assert (found.replicas, found.able[0]) == (10, "ScaleDownStabilized")
    assert behavior.bound(hpa(), past, 10, 2, 301.0, 300).replicas == 2


def test_down_by_policy():
    rule = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}
    found = behavior.bound(hpa(scaleDown=rule), behavior.Past(), 10, 1, 0.0, 300)
    assert (found.replicas, found.limited[1]) == (8, "ScaleDownLimit")
