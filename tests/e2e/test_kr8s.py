"""kr8s: create, wait, scale, exec, logs, port-forward, watch, and classes for custom resources."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tests.e2e.conftest import Cluster
from tests.e2e.test_kopf import definition

pytestmark = [
    pytest.mark.judge,
    pytest.mark.filterwarnings("ignore:Kubernetes version:UserWarning"),  # it knows versions up to 1.35
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # it leaves connections open
]

GROUP = "kr.example.com"


def _deployment(namespace: str) -> dict[str, Any]:
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": "registry.k8s.io/e2e-test-images/nginx:1.0",
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def test_kr8s(cluster: Cluster, namespace: str) -> None:
    asyncio.run(_kr8s(cluster, namespace))
    gc.collect()  # what it leaves open is complained of here, not later


async def _kr8s(cluster: Cluster, namespace: str) -> None:
    import httpx
    import kr8s
    from kr8s.asyncio.objects import CustomResourceDefinition, Deployment, Pod, Service, new_class

    api = await kr8s.asyncio.api(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
    assert (await api.version())["major"] == "1"
    service = await Service(
        {
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080, "targetPort": 80}]},
        },
        api=api,
    )
    await service.create()
    deployment = await Deployment(_deployment(namespace), api=api)
    await deployment.create()
    await deployment.wait("condition=Available", timeout=60)
    (pod,) = await deployment.pods()

    done = await pod.exec(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)

    async with pod.portforward(remote_port=80, local_port="auto") as port, httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 200
    assert (await service.proxy_http_get("/", port=8080)).status_code == 200
    assert [line async for line in pod.logs()]

    await deployment.scale(2)
    await deployment.wait("jsonpath='{.status.readyReplicas}'=2", timeout=30)
    assert len(await deployment.pods()) == 2
    await deployment.label(tier="front")
    await deployment.annotate({"kr.example.com/note": "x"})
    await deployment.refresh()
    assert deployment.labels["tier"] == "front"
    await deployment.patch([{"op": "remove", "path": "/metadata/labels/tier"}], type="json")
    assert "tier" not in deployment.labels
    await deployment.delete("Foreground")
    await deployment.wait("delete", timeout=60)
    assert [p async for p in Pod.list(namespace=namespace, label_selector="app=web", api=api)] == []

    crd = await CustomResourceDefinition(definition("gadgets", "Gadget", GROUP), api=api)
    await crd.create()
    try:
        await crd.wait("condition=Established", timeout=20)
        kind = new_class(kind="Gadget", version=f"{GROUP}/v1", asyncio=True, namespaced=True, plural="gadgets")
        gadget = await kind({"metadata": {"name": "g", "namespace": namespace}, "spec": {"n": 1}}, api=api)
        await gadget.create()
        seen: list[tuple[str, int]] = []
        begun = asyncio.Event()

        async def watch() -> None:
            async for event, found in api.watch(f"gadgets.{GROUP}", namespace=namespace):
                seen.append((event, found.spec.n))
                begun.set()
                if event == "DELETED":
                    return

        watching = asyncio.create_task(watch())
        await begun.wait()
        await gadget.patch({"spec": {"n": 2}})
        await gadget.delete()
        await asyncio.wait_for(watching, 20)
        assert seen == [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)]
    finally:
        await crd.delete()
        assert api._session
        await api._session.aclose()
