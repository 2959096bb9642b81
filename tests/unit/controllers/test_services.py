from typing import Any

from controllers_world import World

from berg.controllers.endpointslice_packing import Desired, plan


def service(world: World, **spec: Any) -> dict[str, Any]:
    return world.create(
        "services",
        {
            "metadata": {"name": "web", "labels": {"team": "a"}},
            "spec": {
                "selector": {"app": "web"},
                "clusterIP": "10.0.0.1",
                "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}],
                **spec,
            },
        },
    )


def pod(world: World, name: str, ip: str = "", ready: bool = True, port: int = 8080, **spec: Any) -> None:
    container = {"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}
    status: dict[str, Any] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    if ip:
        status["podIPs"] = [{"ip": ip}]
    body = {
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [container], **spec},
        "status": status,
    }
    world.create("pods", body)


def node(world: World, name: str = "n1", zone: str = "z1") -> None:
    world.create("nodes", {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}, "spec": {}})


def slices(world: World) -> list[dict[str, Any]]:
    return world.all("endpointslices.discovery.k8s.io")


BOTH = ("endpoints-controller", "endpointslice-controller")


async def test_pods_behind_a_service(world: World):
    node(world)
    service(world)
    pod(world, "a", "10.1.0.1", hostname="h", subdomain="web")
    pod(world, "b", "10.1.0.2", ready=False)
    pod(world, "pending")
    await world.run(*BOTH)
    (s,) = slices(world)
    assert s["metadata"]["labels"] == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert s["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    endpoints = {e["targetRef"]["name"]: e for e in s["endpoints"]}
    assert endpoints["a"]["addresses"] == ["10.1.0.1"]
    assert endpoints["a"]["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert (endpoints["a"]["hostname"], endpoints["a"]["zone"], endpoints["a"]["nodeName"]) == ("h", "z1", "n1")
    assert endpoints["b"]["conditions"] == {"ready": False, "serving": False, "terminating": False}
    ep = world.get("endpoints", "web")
    (subset,) = ep["subsets"]
    assert [x["ip"] for x in subset["addresses"]] == ["10.1.0.1"]
    assert [x["ip"] for x in subset["notReadyAddresses"]] == ["10.1.0.2"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert ep["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"] == "endpoint-controller"


async def test_a_terminating_pod_still_serves_but_is_not_ready(world: World):
    node(world)
    service(world)
    pod(world, "a", "10.1.0.1")
    await world.run("endpointslice-controller")
    await world.client.request("DELETE", "/api/v1/namespaces/default/pods/a", body={})
    await world.settle()
    (s,) = slices(world)
    assert s["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


async def test_named_ports_may_differ_and_make_their_own_slice(world: World):
    node(world)
    service(world)
    pod(world, "a", "10.1.0.1", port=1)
    pod(world, "b", "10.1.0.2", port=2)
    await world.run(*BOTH)
    assert sorted(s["ports"][0]["port"] for s in slices(world)) == [1, 2]
    assert len(world.get("endpoints", "web")["subsets"]) == 2


async def test_no_endpoints_is_an_empty_slice(world: World):
    service(world, clusterIP="None")
    await world.run("endpointslice-controller")
    (s,) = slices(world)
    assert (s["endpoints"], s["ports"]) == ([], [])
    assert s["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


async def test_two_families(world: World):
    node(world)
    service(world, ipFamilies=["IPv4", "IPv6"])
    pod(world, "a", "10.1.0.1")
    world.change("pods", "a", {"status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}})
    await world.run("endpointslice-controller")
    assert {s["addressType"]: s["endpoints"][0]["addresses"] for s in slices(world)} == {
        "IPv4": ["10.1.0.1"],
        "IPv6": ["fd00::1"],
    }


async def test_traffic_may_prefer_its_zone(world: World):
    node(world)
    service(world, trafficDistribution="PreferClose")
    pod(world, "a", "10.1.0.1")
    await world.run("endpointslice-controller")
    assert slices(world)[0]["endpoints"][0]["hints"] == {"forZones": [{"name": "z1"}]}


async def test_endpoints_kept_by_hand_are_mirrored(world: World):
    service(world, selector=None)
    subset = {"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 5432, "protocol": "TCP"}]}
    world.create("endpoints", {"metadata": {"name": "web"}, "subsets": [subset]})
    await world.run("endpointslice-mirroring-controller")
    (s,) = slices(world)
    assert s["endpoints"] == [{"addresses": ["1.2.3.4"], "conditions": {"ready": True}}]
    assert s["ports"] == [{"name": "", "port": 5432, "protocol": "TCP"}]
    assert (
        s["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    )
    world.delete("endpoints", "web")
    await world.settle()
    assert slices(world) == []


def endpoint(n: int, ready: bool = True) -> dict[str, Any]:
    return {"addresses": [f"10.0.{n // 250}.{n % 250}"], "conditions": {"ready": ready}, "targetRef": {"uid": str(n)}}


def made(name: str, numbers: range) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {}},
        "addressType": "IPv4",
        "ports": [],
        "endpoints": [endpoint(n) for n in numbers],
    }


def test_a_hundred_in_a_slice():
    todo = plan("IPv4", [], [Desired([], [endpoint(n) for n in range(250)])], {})
    assert [len(s["endpoints"]) for s in todo.create] == [100, 100, 50]


def test_one_more_changes_one_slice():
    existing = [made("a", range(90)), made("b", range(90, 150))]
    todo = plan("IPv4", existing, [Desired([], [endpoint(n) for n in range(151)])], {})
    assert [s["metadata"]["name"] for s in todo.update] == ["a"]
    assert (todo.create, todo.delete) == ([], [])


def test_one_less_changes_one_slice_and_the_last_deletes_it():
    existing = [made("a", range(2)), made("b", range(2, 3))]
    todo = plan("IPv4", existing, [Desired([], [endpoint(0), endpoint(2)])], {})
    assert [(s["metadata"]["name"], len(s["endpoints"])) for s in todo.update] == [("a", 1)]
    todo = plan("IPv4", existing, [Desired([], [endpoint(0), endpoint(1)])], {})
    assert [s["metadata"]["name"] for s in todo.delete] == ["b"]


def test_a_change_of_readiness_is_an_update_in_place():
    todo = plan("IPv4", [made("a", range(2))], [Desired([], [endpoint(0, ready=False), endpoint(1)])], {})
    assert [[e["conditions"]["ready"] for e in s["endpoints"]] for s in todo.update] == [[False, True]]
