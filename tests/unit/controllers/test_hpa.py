from typing import Any

import pytest
from controllers_world import World, template

from berg.machinery.clock import rfc3339

DISCOVERY = [
    {
        "metadata": {"name": "apps"},
        "versions": [
            {
                "version": "v1",
                "resources": [
                    {
                        "resource": "deployments",
                        "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                        "scope": "Namespaced",
                        "verbs": ["get"],
                        "subresources": [
                            {
                                "subresource": "scale",
                                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                                "verbs": ["get", "update"],
                            }
                        ],
                    }
                ],
            }
        ],
    }
]


def autoscaler(**spec: Any) -> dict[str, Any]:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    return {
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": cpu}],
            **spec,
        },
    }


def usage(world: World, *milli: int) -> None:
    for i, m in enumerate(milli):
        item = {
            "metadata": {"name": f"p{i}", "namespace": "default", "labels": {"app": "web"}},
            "timestamp": rfc3339(world.clock.now()),
            "window": "15s",
            "containers": [{"name": "c", "usage": {"cpu": f"{m}m", "memory": "1Mi"}}],
        }
        world.api.put("metrics.k8s.io", "pods", item)


@pytest.fixture
async def autoscaled(world: World):
    world.api.discovery = DISCOVERY
    body = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template({"app": "web"})}
    world.create("deployments.apps", {"metadata": {"name": "web"}, "spec": body, "status": {"replicas": 2}})
    container = {"name": "c", "resources": {"requests": {"cpu": "100m"}}}
    start = rfc3339(world.clock.now())
    for i in range(2):
        world.create(
            "pods", {"metadata": {"name": f"p{i}", "labels": {"app": "web"}}, "spec": {"containers": [container]}}
        )
        world.set_pod(f"p{i}", startTime=start)
    await world.clock.advance(400)
    return world


def size(world: World) -> int:
    return int(world.get("deployments.apps", "web")["spec"]["replicas"])


def conditions(world: World) -> dict[str, tuple[str, str]]:
    found = world.get("horizontalpodautoscalers.autoscaling", "h")["status"]["conditions"]
    return {c["type"]: (c["status"], c["reason"]) for c in found}


NAME = "horizontal-pod-autoscaler-controller"


async def test_up_by_utilization(autoscaled: World):
    usage(autoscaled, 90, 110)
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler())
    await autoscaled.run(NAME)
    assert size(autoscaled) == 4
    assert autoscaled.events("SuccessfulRescale") == [
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    ]
    assert conditions(autoscaled) == {
        "AbleToScale": ("True", "SucceededRescale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("False", "DesiredWithinRange"),
    }
    status = autoscaled.get("horizontalpodautoscalers.autoscaling", "h")["status"]
    current = status["currentMetrics"][0]["resource"]["current"]
    assert current == {"averageUtilization": 100, "averageValue": "100m"}
    assert (status["currentReplicas"], status["desiredReplicas"]) == (2, 4)
    assert autoscaled.manager is not None
    metrics, of = autoscaled.manager.metrics.text(), "horizontal_pod_autoscaler_controller"
    assert f'{of}_reconciliations_total{{action="scale_up",error="none"}} 1' in metrics
    assert f'{of}_metric_computation_total{{action="scale_up",error="none",metric_type="Resource"}} 1' in metrics


async def test_near_enough_stays(autoscaled: World):
    usage(autoscaled, 52, 52)
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler())
    await autoscaled.run(NAME)
    assert size(autoscaled) == 2


async def test_a_pod_without_metrics_holds_back(autoscaled: World):
    usage(autoscaled, 90)  # p1 is unknown: taken for idle when going up
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler())
    await autoscaled.run(NAME)
    assert size(autoscaled) == 2


async def test_down_only_when_it_has_been_low_for_long(autoscaled: World):
    usage(autoscaled, 60, 60)
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler())
    await autoscaled.run(NAME)
    assert size(autoscaled) == 3
    autoscaled.change("deployments.apps", "web", {"spec": {"replicas": 2}})
    usage(autoscaled, 5, 5)
    await autoscaled.clock.advance(60)
    await autoscaled.settle()
    assert size(autoscaled) == 2
    assert conditions(autoscaled)["AbleToScale"] == ("True", "ScaleDownStabilized")
    await autoscaled.clock.advance(300)
    await autoscaled.settle()
    assert size(autoscaled) == 1


async def test_bounds(autoscaled: World):
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler(minReplicas=4))
    await autoscaled.run(NAME)
    assert size(autoscaled) == 4
    assert autoscaled.events("SuccessfulRescale") == [
        "New size: 4; reason: Current number of replicas below Spec.MinReplicas"
    ]


async def test_no_metrics_is_said(autoscaled: World):
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler())
    await autoscaled.run(NAME)
    assert size(autoscaled) == 2
    assert conditions(autoscaled)["ScalingActive"] == ("False", "FailedGetResourceMetric")


async def test_what_cannot_be_scaled_is_said(autoscaled: World):
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}
    autoscaled.create("horizontalpodautoscalers.autoscaling", autoscaler(scaleTargetRef=ref))
    await autoscaled.run(NAME)
    assert conditions(autoscaled) == {"AbleToScale": ("False", "FailedGetScale")}
