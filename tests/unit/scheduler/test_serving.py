"""Health and metrics of the scheduler."""

from __future__ import annotations

import asyncio
import re
import ssl

from berg.client.serving import Serving
from berg.machinery.resources import resource
from berg.scheduler.metrics import Metrics
from berg.testing import Cluster


async def get(port: int, path: str, token: str = "") -> tuple[int, str]:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    head, _, body = text.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_health_for_all_metrics_for_whom_rbac_lets() -> None:
    async with Cluster(controllers=False, https=False) as cluster:
        scheduler = cluster.scheduler
        assert scheduler is not None
        metrics = scheduler.metrics = Metrics(scheduler.queue.counts)
        serving = Serving(
            scheduler.client,
            "kube-scheduler",
            metrics.text,
            address="127.0.0.1",
            more={"/metrics/resources": scheduler.pod_resources},
        )
        await serving.start()
        try:
            container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "250m", "memory": "1Mi"}}}
            pod = {"metadata": {"name": "a"}, "spec": {"containers": [container]}}
            await cluster.client.create(resource("pods"), pod, "default")
            await cluster.until("pods", "a", lambda p: p["status"].get("phase") == "Running")
            assert await get(serving.port, "/healthz") == (200, "ok")
            assert (await get(serving.port, "/metrics"))[0] == 401
            assert (await get(serving.port, "/metrics", "nonsense"))[0] == 401
            token = await account_token(cluster, "reader")
            assert (await get(serving.port, "/metrics", token))[0] == 403
            binding = {
                "metadata": {"name": "reader"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "system:monitoring",
                },
                "subjects": [{"kind": "ServiceAccount", "name": "other", "namespace": "default"}],
            }
            await cluster.client.create(resource("clusterrolebindings.rbac.authorization.k8s.io"), binding)
            token = await account_token(cluster, "other")
            status, body = await get(serving.port, "/metrics", token)
            assert status == 200
            async with asyncio.timeout(30):  # it counts a pod when it has heard that it is bound
                while 'result="scheduled"} 1' not in body:
                    _, body = await get(serving.port, "/metrics", token)
            assert 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1' in body
            assert 'scheduler_queue_incoming_pods_total{event="PodAdd",queue="active"} 1' in body
            for point in ("PreFilter", "Filter", "Score", "Reserve", "Permit", "PreBind", "Bind"):
                labels = f'extension_point="{point}",profile="default-scheduler",status="Success"'
                assert f"scheduler_framework_extension_point_duration_seconds_count{{{labels}}} 1" in body
            assert 'scheduler_pending_pods{queue="active"} 0' in body
            assert (await get(serving.port, "/metrics/resources", token))[0] == 403, "a right of its own"
            asked = scheduler.pod_resources().decode()
            pod_a = r'^kube_pod_resource_request\{namespace="default",node="[^"]+",pod="a",priority="0",'
            assert re.search(pod_a + r'resource="cpu",scheduler="default-scheduler",unit="cores"\} 0.25$', asked, re.M)
            assert re.search(pod_a + r'resource="memory",.*unit="bytes"\} 1.048576e\+06$', asked, re.M)
            assert "kube_pod_resource_limit" not in asked
        finally:
            await serving.stop()


async def account_token(cluster: Cluster, name: str) -> str:
    accounts = resource("serviceaccounts")
    await cluster.client.create(accounts, {"metadata": {"name": name}}, "default")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    made = await cluster.client.create(accounts, request, "default", name=name, subresource="token")
    return str(made["status"]["token"])
