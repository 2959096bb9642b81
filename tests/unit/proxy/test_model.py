"""Which endpoints a service's traffic goes to, by the rules of KEP-1669, 2086, 2433 and 3015."""

from __future__ import annotations

from typing import Any

import pytest

from berg.proxy.model import ServicePort, service_ports


def service(**spec: Any) -> dict[str, Any]:
    base = {"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]}
    return {"metadata": {"namespace": "default", "name": "web"}, "spec": base | spec}


def endpoint(address: str, node: str = "n1", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": {"ready": True} | conditions}


def piece(*endpoints: dict[str, Any], port: int = 8080, family: int = 4) -> dict[str, Any]:
    return {"addressType": f"IPv{family}", "ports": [{"port": port}], "endpoints": list(endpoints)}


def one(s: dict[str, Any], *slices: dict[str, Any], zone: str = "") -> ServicePort:
    [port] = service_ports(s, slices, "n1", zone, 4)
    return port


def test_only_ready_endpoints_are_used() -> None:
    p = one(service(), piece(endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False)))
    assert p.internal == (("10.0.0.1", 8080),)


def test_terminating_endpoints_serve_when_none_is_ready() -> None:
    p = one(
        service(),
        piece(endpoint("10.0.0.1", ready=False, serving=True, terminating=True), endpoint("10.0.0.2", ready=False)),
    )
    assert p.internal == (("10.0.0.1", 8080),)


@pytest.mark.parametrize(
    ("spec", "internal", "external", "dropped"),
    [
        ({}, 2, 2, False),
        ({"internalTrafficPolicy": "Local"}, 1, 2, False),
        ({"externalTrafficPolicy": "Local", "type": "NodePort"}, 2, 1, False),
    ],
)
def test_traffic_policies(spec: dict[str, Any], internal: int, external: int, dropped: bool) -> None:
    p = one(service(**spec), piece(endpoint("10.0.0.1"), endpoint("10.0.0.2", node="n2")))
    assert (len(p.internal), len(p.external), p.drop_external) == (internal, external, dropped)


def test_external_local_without_a_local_endpoint_drops() -> None:
    p = one(service(externalTrafficPolicy="Local", type="NodePort"), piece(endpoint("10.0.0.2", node="n2")))
    assert p.external == ()
    assert p.drop_external


def test_zone_hints_bind_only_when_every_endpoint_has_one() -> None:
    a, b = endpoint("10.0.0.1"), endpoint("10.0.0.2")
    a["hints"] = {"forZones": [{"name": "z1"}]}
    assert len(one(service(), piece(a, b), zone="z1").internal) == 2
    b["hints"] = {"forZones": [{"name": "z2"}]}
    assert one(service(), piece(a, b), zone="z1").internal == (("10.0.0.1", 8080),)


@pytest.mark.parametrize("spec", [{"clusterIP": "None", "clusterIPs": ["None"]}, {"type": "ExternalName"}])
def test_services_without_an_address_need_no_rules(spec: dict[str, Any]) -> None:
    assert service_ports(service(**spec), [piece(endpoint("10.0.0.1"))], "n1", "", 4) == []


def test_each_family_sees_its_own_slices() -> None:
    s = service(clusterIPs=["10.96.0.7", "fd00::7"])
    six = service_ports(s, [piece(endpoint("10.0.0.1")), piece(endpoint("fd01::1"), family=6)], "n1", "", 6)
    assert [(p.cluster_ip, p.internal) for p in six] == [("fd00::7", (("fd01::1", 8080),))]
