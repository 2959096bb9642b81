"""What is served beside resources: discovery, OpenAPI, health, the bootstrap objects."""

from __future__ import annotations

import orjson
import pytest

from berg.apiserver.served import served_by
from tests.unit.apiserver.served_api import Served

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_discovery_old_and_aggregated(served: Served) -> None:
    assert (await served.get("/api"))["versions"] == ["v1"]
    names = [g["name"] for g in (await served.get("/apis"))["groups"]]
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= set(names)
    pods = {r["name"]: r for r in (await served.get("/api/v1"))["resources"]}
    assert pods["pods"]["shortNames"] == ["po"]
    assert (pods["pods/eviction"]["group"], pods["pods/eviction"]["kind"]) == ("policy", "Eviction")
    response = await served.raw("GET", "/apis", accept=V2)
    assert response.content_type == V2
    items = orjson.loads(response.body)["items"]
    assert [i["metadata"]["name"] for i in items] == names
    again = await served.raw("GET", "/apis", accept=V2, if_none_match=response.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


async def test_component_statuses_are_listed_and_got(served: Served) -> None:
    listed = await served.get("/api/v1/componentstatuses")
    assert [i["metadata"]["name"] for i in listed["items"]] == ["scheduler", "controller-manager", "etcd-0"]
    assert (await served.get("/api/v1/componentstatuses/etcd-0"))["conditions"][0]["status"] == "True"
    assert (await served.raw("GET", "/api/v1/componentstatuses/none")).status == 404
    assert (await served.raw("GET", "/api/v1/bindings/none")).status == 404


async def test_openapi(served: Served) -> None:
    index = await served.get("/openapi/v3")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    document = await served.get(url)
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in [p["name"] for p in patch["parameters"]]
    owner = document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"]["properties"]
    assert (owner["name"]["default"], "default" in owner["controller"]) == ("", False)
    old = await served.get("/openapi/v2")
    assert "io.k8s.api.core.v1.Pod" in old["definitions"]
    flows = old["paths"]["/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"]["get"]
    assert (flows["operationId"], flows["tags"]) == (
        "listFlowcontrolApiserverV1FlowSchema",
        ["flowcontrolApiserver_v1"],
    )
    deleted = {
        plural: old["paths"][f"/api/v1/namespaces/{{namespace}}/{plural}/{{name}}"]["delete"]["responses"]["200"]
        for plural in ("podtemplates", "configmaps")
    }
    assert [d["schema"]["$ref"].rpartition(".")[2] for d in deleted.values()] == ["PodTemplate", "Status"]


async def test_paths_that_openapi_lists_answer(served: Served) -> None:
    for path, item in (await served.get("/openapi/v2"))["paths"].items():
        if path.endswith("/"):  # discovery, the version, keys
            assert list(item) == ["get"] and (await served.raw("GET", path)).status == 200
    proxied = await served.raw("OPTIONS", "/api/v1/namespaces/default/pods/none/proxy")
    assert (proxied.status, (await served.raw("OPTIONS", "/api/v1/namespaces/default/pods")).status) == (404, 405)


async def test_health(served: Served) -> None:
    assert (await served.raw("GET", "/readyz")).body == b"ok"
    verbose = (await served.raw("GET", "/readyz?verbose&exclude=etcd")).body.decode()
    assert "[+]ping ok\n" in verbose and "[+]etcd excluded: ok\n" in verbose
    assert verbose.endswith("readyz check passed\n")
    assert (await served.raw("GET", "/livez/ping")).body == b"ok"
    served.server.health.add("bad", lambda: "broken")
    failing = await served.raw("GET", "/livez")
    assert failing.status == 500 and b"[-]bad failed: reason withheld\n" in failing.body


async def test_what_every_cluster_has(served: Served) -> None:
    names = [n["metadata"]["name"] for n in (await served.get("/api/v1/namespaces"))["items"]]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    service = await served.get("/api/v1/namespaces/default/services/kubernetes")
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    slices = await served.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
    assert slices["endpoints"][0]["addresses"] == ["10.0.0.5"]
    admin = await served.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin")
    assert admin["rules"], "aggregated before any controller runs"
    levels = await served.get("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations")
    assert len(levels["items"]) == 8


async def test_metrics_count(served: Served) -> None:
    await served.ask("GET", "/api/v1/namespaces/default")
    text = (await served.raw("GET", "/metrics")).body.decode()
    assert 'apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="namespaces",' in text


async def test_paths_that_are_not_there(served: Served) -> None:
    for path in ("/nope", "/apis/nope.example.com/v1", "/apis/nope.example.com/v1/foos"):
        response = await served.raw("GET", path)
        assert (response.status, response.body) == (404, b"404 page not found\n"), path
    for path in (
        "/api/v1/foos",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/../namespaces",
        "/api/v2",
        "/apis/apps/v9/x",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/api/v1/proxy/nodes/a",
    ):
        code, answer = await served.ask("GET", path)
        assert (code, answer["message"], answer["details"]) == (
            404,
            "the server could not find the requested resource",
            {},
        ), path


async def test_methods_that_a_path_does_not_have(served: Served) -> None:
    for method, path in (
        ("DELETE", "/api/v1"),
        ("PUT", "/version"),
        ("HEAD", "/api/v1/namespaces"),
        ("DELETE", "/api/v1/watch/pods"),
        ("POST", "/api/v1/namespaces/default/configmaps/a"),
        ("PUT", "/api/v1/namespaces/default/pods/a/eviction"),
    ):
        code, answer = await served.ask(method, path, {})
        assert (code, answer["message"], answer["details"]) == (
            405,
            "the server does not allow this method on the requested resource",
            {},
        ), path
    assert (await served.raw("POST", "/apis", {})).status == 200, "what lists all groups answers any method"


async def test_runtime_config() -> None:
    def versions(config: dict[str, str]) -> set[str]:
        return {r.api_version for r in served_by(config)}

    assert "certificates.k8s.io/v1beta1" not in versions({})
    assert "certificates.k8s.io/v1beta1" in versions({"certificates.k8s.io/v1beta1": "true"})
    assert "autoscaling/v1" not in versions({"autoscaling/v1": "false"})
    assert "v1" in versions({"api/beta": "true"}) and "certificates.k8s.io/v1beta1" in versions({"api/beta": "true"})
    assert "certificates.k8s.io/v1beta1" in versions({"api/all": "false", "certificates.k8s.io/v1beta1": ""})
    without = served_by({"apps/v1/daemonsets": "false"})
    assert {r.plural for r in without if r.group == "apps"} & {"daemonsets", "deployments"} == {"deployments"}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"foo.io/v1": "true"}, "unknown api groups foo.io/v1"),
        ({"v1beta1": "true"}, "runtime-config invalid key v1beta1"),
        ({"api/all": "false"}, "invalid runtime-config with only api/all=false"),
        ({"api/all": "maybe"}, "invalid value api/all=maybe"),
        (
            {"certificates.k8s.io/v1beta9": "true"},
            "group version certificates.k8s.io/v1beta9 that has not been registered",
        ),
        (
            {"apps/v1": "maybe"},
            'invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
    ],
)
def test_runtime_config_that_cannot_be_meant(config: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError) as refused:
        served_by(config)
    assert str(refused.value) == why


async def test_health_checks_are_counted(served: Served) -> None:
    told = (await served.raw("GET", "/readyz?verbose")).body.decode()
    for name in ("informer-sync", "poststarthook/crd-informer-synced", "autoregister-completion"):
        assert f"[+]{name} ok" in told
    counted = (await served.raw("GET", "/metrics/slis")).body.decode()
    assert 'kubernetes_healthcheck{name="ping",type="readyz"} 1' in counted
    assert 'kubernetes_healthchecks_total{name="ping",status="success",type="readyz"} 1' in counted
