"""The official Python client and its dynamic client against the API server: typed, dynamic and custom objects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from berg.testing.cluster import Cluster

pytestmark = [pytest.mark.judge, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    },
}
CRD: dict[str, Any] = {
    "metadata": {"name": "widgets.x.io"},
    "spec": {
        "group": "x.io",
        "scope": "Cluster",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                },
            }
        ],
    },
}


async def test_typed_dynamic_and_custom() -> None:
    async with Cluster(nodes=0, controllers=False, scheduler=False) as cluster:
        await asyncio.to_thread(_typed, cluster.kubeconfig_path)
        await asyncio.to_thread(_dynamic, cluster.kubeconfig_path)
        await asyncio.to_thread(_custom, cluster.kubeconfig_path)


def _typed(kubeconfig: str) -> None:
    from kubernetes import client, config, watch

    config.load_kube_config(kubeconfig)
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map("default", {"metadata": {"name": "m"}, "data": {"a": "b"}})
    core.patch_namespaced_config_map("m", "default", {"data": {"c": "d"}})
    core.delete_namespaced_config_map("m", "default")
    seen = []
    watching = watch.Watch()
    version = made.metadata.resource_version
    for event in watching.stream(
        core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=5
    ):
        seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            watching.stop()
    assert seen == [("MODIFIED", {"a": "b", "c": "d"}), ("DELETED", {"a": "b", "c": "d"})]
    with pytest.raises(client.ApiException) as caught:
        core.read_namespaced_pod("x", "default")
    assert (caught.value.status, caught.value.reason) == (404, "Not Found")
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed


def _dynamic(kubeconfig: str) -> None:
    from kubernetes import client, config, dynamic

    config.load_kube_config(kubeconfig)
    apps = client.AppsV1Api()
    apps.create_namespaced_deployment("default", DEPLOYMENT)
    assert apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 5}}).spec.replicas == 5
    deployments = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.get(name="d", namespace="default").spec.replicas == 5
    applied = deployments.server_side_apply(
        body=DEPLOYMENT, name="d", namespace="default", field_manager="m", force_conflicts=True
    )
    assert applied.spec.replicas == 2


def _custom(kubeconfig: str) -> None:
    from kubernetes import client, config, watch

    config.load_kube_config(kubeconfig)
    client.ApiextensionsV1Api().create_custom_resource_definition(CRD)
    custom = client.CustomObjectsApi()
    widget = {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"z": [1, {"y": 2}]}}
    by_name = "metadata.name=widgets.x.io"
    for event in watch.Watch().stream(
        client.ApiextensionsV1Api().list_custom_resource_definition, field_selector=by_name, timeout_seconds=30
    ):
        conditions = event["object"].status.conditions or []
        if any((c.type, c.status) == ("Established", "True") for c in conditions):
            break
    custom.create_cluster_custom_object("x.io", "v1", "widgets", widget)
    assert custom.list_cluster_custom_object("x.io", "v1", "widgets")["items"][0]["spec"] == {"z": [1, {"y": 2}]}
