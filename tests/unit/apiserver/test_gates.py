"""What small feature gates change in the API server: a field that is dropped without them, a value that is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.kinds.core.pod_spec.security import Capabilities
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock

from .served_api import Served

GATES = (
    "CrossNamespaceVolumeDataSource",
    "HPAScaleToZero",
    "MaxUnavailableStatefulSet",
    "PodLogsQuerySplitStreams",
    "TaintTolerationComparisonOperators",
)


@pytest.fixture(params=[True, False], ids=["on", "off"])
async def gated(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Served, bool]]:
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    gates = dict.fromkeys(GATES, True) if request.param else {}
    server = APIServer(Config(secure_port=-1, store=store, clock=clock, feature_gates=gates))
    try:
        await server.start()
        yield Served(server, clock), request.param
    finally:
        await server.stop()
        await store.close()
        Capabilities.compare_taints = False  # of the whole process


async def test_fields_that_a_gate_keeps(gated: tuple[Served, bool]) -> None:
    served, on = gated
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec: dict[str, Any] = {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s", "template": template}
    spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    sets = "/apis/apps/v1/namespaces/default/statefulsets"
    made = await served.create(sets, {"metadata": {"name": "s"}, "spec": spec})
    assert ("maxUnavailable" in made["spec"]["updateStrategy"]["rollingUpdate"]) is on
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec["dataSourceRef"] = {"kind": "PersistentVolumeClaim", "name": "other", "namespace": "elsewhere"}
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    made = await served.create(claims, {"metadata": {"name": "c"}, "spec": spec})
    assert ("dataSourceRef" in made["spec"]) is on


async def test_values_that_a_gate_allows(gated: tuple[Served, bool]) -> None:
    served, on = gated
    spec: dict[str, Any] = {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}
    external = {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}
    spec |= {"minReplicas": 0, "maxReplicas": 3, "metrics": [{"type": "External", "external": external}]}
    scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    code, answer = await served.ask("POST", scalers, {"metadata": {"name": "h"}, "spec": spec})
    assert code == (201 if on else 422), answer
    del spec["metrics"]
    code, answer = await served.ask("POST", scalers, {"metadata": {"name": "i"}, "spec": spec})
    assert (code, "at least one Object or External metric" in answer["message"]) == (422, True)
    pods = "/api/v1/namespaces/default/pods"
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await served.create(pods, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    assert (await served.raw("GET", f"{pods}/p/log?stream=Stderr")).status == (200 if on else 422)
    assert (await served.raw("GET", f"{pods}/p/log?stream=Stderr&tailLines=3")).status == 422
    assert (await served.raw("GET", f"{pods}/p/log?tailLines=3")).status == 200


async def test_tolerations_of_numbers(gated: tuple[Served, bool]) -> None:
    served, on = gated
    sets = "/apis/apps/v1/namespaces/default/daemonsets"
    template: dict[str, Any] = {"metadata": {"labels": {"a": "b"}}}
    template["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    for value, why in (("5", ""), ("05", "canonical form"), ("x", "invalid syntax"), ("9" * 20, "out of range")):
        template["spec"]["tolerations"] = [{"key": "k", "operator": "Gt", "value": value, "effect": "NoSchedule"}]
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        code, answer = await served.ask("POST", sets, {"metadata": {"generateName": "d"}, "spec": spec})
        assert code == (201 if on and not why else 422), answer
        assert code == 201 or (why if on else "supported values") in answer["message"]
