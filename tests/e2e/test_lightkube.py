"""lightkube, sync and async: typed and generic resources, apply, patches, watch, wait, logs, sub-resources."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.judge

GROUP = "lk.example.com"


def _pod(name: str) -> Any:
    from lightkube.models.core_v1 import Container, PodSpec
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Pod

    script = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done"
    container = Container(name="c", image="registry.k8s.io/e2e-test-images/busybox:1.0", command=["sh", "-c", script])
    return Pod(
        metadata=ObjectMeta(name=name, labels={"of": "lightkube"}),
        spec=PodSpec(containers=[container], terminationGracePeriodSeconds=0),
    )


def test_sync(cluster: Cluster, namespace: str) -> None:
    from lightkube import ApiError, Client, KubeConfig, codecs
    from lightkube.generic_resource import create_namespaced_resource, load_in_cluster_generic_resources
    from lightkube.models.apps_v1 import DeploymentSpec
    from lightkube.models.autoscaling_v1 import ScaleSpec
    from lightkube.models.core_v1 import PodTemplateSpec
    from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
    from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap, Pod
    from lightkube.types import CascadeType, PatchType

    client = Client(config=KubeConfig.from_file(cluster.kubeconfig), namespace=namespace, field_manager="lightkube")

    # Server-side apply: what is no longer named goes, what others own stays
    config = ConfigMap(metadata=ObjectMeta(name="m"), data={"a": "1", "b": "1"})
    client.apply(config)
    client.patch(ConfigMap, "m", {"data": {"other": "1"}}, patch_type=PatchType.MERGE)
    config.data = {"a": "2"}
    assert client.apply(config).data == {"a": "2", "other": "1"}
    with pytest.raises(ApiError) as caught:
        client.apply(ConfigMap(metadata=ObjectMeta(name="m"), data={"a": "3"}), field_manager="another")
    assert caught.value.status.code == 409 and ".data.a" in caught.value.status.message
    client.patch(ConfigMap, "m", [{"op": "remove", "path": "/data/other"}], patch_type=PatchType.JSON)
    assert client.get(ConfigMap, "m").data == {"a": "2"}

    # A deployment, its scale, and what waits for it
    labels = {"of": "deployment"}
    template = PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=_pod("x").spec)
    client.create(
        Deployment(
            metadata=ObjectMeta(name="d"),
            spec=DeploymentSpec(replicas=1, selector=LabelSelector(matchLabels=labels), template=template),
        )
    )
    client.wait(Deployment, "d", for_conditions=["Available"])
    (name,) = [p.metadata.name for p in client.list(Pod, labels=labels)]
    scale = client.get(Deployment.Scale, "d")
    scale.spec = ScaleSpec(replicas=2)
    client.replace(scale, "d")
    assert client.get(Deployment, "d").spec.replicas == 2
    lines = []
    following = client.log(name, follow=True)
    for line in following:
        lines.append(line)
        if len(lines) == 4:
            break
    following.close()
    assert lines[:2] == ["line 0\n", "line 1\n"]
    assert list(client.log(name, tail_lines=1))
    client.delete(Deployment, "d", cascade=CascadeType.FOREGROUND)

    # Custom resources, by a class made at run time and by those the cluster tells of
    from tests.e2e.test_kopf import definition

    made = definition("widgets", "Widget", GROUP)
    client.create(codecs.from_dict(made))
    try:
        client.wait(CustomResourceDefinition, f"widgets.{GROUP}", for_conditions=["Established"])
        widgets = create_namespaced_resource(GROUP, "v1", "Widget", "widgets")
        client.create(widgets(metadata=ObjectMeta(name="w"), spec={"size": 3}))
        client.patch(widgets.Status, "w", {"status": {"ready": True}}, patch_type=PatchType.MERGE)
        load_in_cluster_generic_resources(client)
        found = client.get(widgets, "w")
        assert (found.spec["size"], found.status["ready"]) == (3, True)
    finally:
        client.delete(CustomResourceDefinition, f"widgets.{GROUP}")
        client.close()


def test_async(cluster: Cluster, namespace: str) -> None:
    asyncio.run(_async(cluster, namespace))


async def _async(cluster: Cluster, namespace: str) -> None:
    from lightkube import ApiError, AsyncClient, KubeConfig
    from lightkube.resources.core_v1 import Pod

    client = AsyncClient(config=KubeConfig.from_file(cluster.kubeconfig), namespace=namespace)
    seen: list[tuple[str, str]] = []

    async def watch() -> None:
        async for event, pod in client.watch(Pod, labels={"of": "lightkube"}, server_timeout=30):
            seen.append((event, pod.status.phase or ""))
            if event == "DELETED":
                return

    watching = asyncio.create_task(watch())
    await client.create(_pod("p"))
    await client.wait(Pod, "p", for_conditions=["Ready"])
    first = ""
    following = client.log("p", follow=True)
    async for line in following:
        first = line
        break
    await following.aclose()
    assert first == "line 0\n"
    assert [p.metadata.name async for p in client.list(Pod, chunk_size=1)] == ["p"]
    await client.delete(Pod, "p", grace_period=0)
    await asyncio.wait_for(watching, 30)
    assert seen[0] == ("ADDED", "Pending") and ("MODIFIED", "Running") in seen
    with pytest.raises(ApiError):
        await client.get(Pod, "p")
    await client.close()
