from datetime import UTC, datetime

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock

SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture
async def store():
    store = storage.open("memory:", clock=FakeClock(datetime(2026, 11, 21, 12, tzinfo=UTC)), compaction_interval_s=0)
    await store.start()
    yield store
    await store.close()


async def started(store, **more):
    config = Config(secure_port=-1, store=store, advertise_address="10.0.0.5", **more)
    server = APIServer(config)
    await server.start()
    return server


@pytest.fixture
async def ask(store):
    from tests.unit.apiserver.served_api import Served

    server = await started(store, service_cluster_ip_range=["10.0.0.0/24"], service_node_port_range=(30000, 30002))
    yield Served(server, None).ask
    await server.stop()


def service(name, **spec):
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_an_address_is_given_and_held(ask):
    code, made = await ask("POST", SERVICES, service("a"))
    assert code == 201
    spec = made["spec"]
    assert spec["clusterIP"].startswith("10.0.0.")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    _, address = await ask("GET", f"/apis/networking.k8s.io/v1/ipaddresses/{spec['clusterIP']}")
    assert address["spec"]["parentRef"] == {"resource": "services", "namespace": "default", "name": "a"}
    code, fault = await ask("POST", SERVICES, service("b", clusterIP=spec["clusterIP"]))
    assert code == 422
    assert fault["message"] == (
        f'Service "b" is invalid: spec.clusterIPs: Invalid value: ["{spec["clusterIP"]}"]: '
        "failed to allocate IP {}: provided IP is already allocated".format(spec["clusterIP"])
    )
    await ask("DELETE", f"{SERVICES}/a")
    code, _ = await ask("POST", SERVICES, service("b", clusterIP=spec["clusterIP"]))
    assert code == 201


async def test_addresses_out_of_range(ask):
    code, fault = await ask("POST", SERVICES, service("a", clusterIP="10.1.0.1"))
    assert code == 422
    assert 'spec.clusterIPs: Invalid value: ["10.1.0.1"]: failed to allocate IP 10.1.0.1' in fault["message"]


async def test_headless_and_external_names_have_none(ask):
    _, made = await ask("POST", SERVICES, service("a", clusterIP="None"))
    assert made["spec"]["clusterIP"] == "None"
    _, made = await ask(
        "POST", SERVICES, {"metadata": {"name": "b"}, "spec": {"type": "ExternalName", "externalName": "a.b"}}
    )
    assert "clusterIP" not in made["spec"]


async def test_node_ports(ask):
    found = set()
    for name in "abc":
        code, made = await ask("POST", SERVICES, service(name, type="NodePort"))
        assert code == 201
        found.add(made["spec"]["ports"][0]["nodePort"])
    assert found == {30000, 30001, 30002}
    code, fault = await ask("POST", SERVICES, service("d", type="NodePort"))
    assert (code, fault["message"]) == (500, "Internal error occurred: failed to allocate a nodePort: range is full")
    code, fault = await ask("POST", SERVICES, service("d", type="NodePort", ports=[{"port": 80, "nodePort": 30001}]))
    assert code == 422
    assert fault["message"] == (
        'Service "d" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated'
    )
    code, made = await ask(
        "PATCH", f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}}, content_type="application/merge-patch+json"
    )
    assert code == 200
    assert "nodePort" not in made["spec"]["ports"][0]
    code, _ = await ask("POST", SERVICES, service("d", type="NodePort"))
    assert code == 201


async def test_what_is_stored_is_known_after_a_restart(store):
    from tests.unit.apiserver.served_api import Served

    server = await started(store)
    _, made = await Served(server, None).ask("POST", SERVICES, service("a", type="NodePort"))
    await server.stop()
    server = await started(store)
    ask = Served(server, None).ask
    spec = made["spec"]
    code, _ = await ask("POST", SERVICES, service("b", clusterIP=spec["clusterIP"]))
    assert code == 422
    code, _ = await ask("POST", SERVICES, service("b", type="NodePort", ports=spec["ports"]))
    assert code == 422
    await server.stop()


async def test_a_dry_run_takes_nothing(ask):
    code, made = await ask("POST", SERVICES + "?dryRun=All", service("a", type="NodePort", clusterIP="10.0.0.77"))
    assert (code, made["spec"]["clusterIP"]) == (201, "10.0.0.77")
    code, _ = await ask("POST", SERVICES, service("a", clusterIP="10.0.0.77"))
    assert code == 201


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            {"port": 81, "nodePort": 30001},
            "spec.ports[1].nodePort: Invalid value: 30001: provided port is already allocated",
        ),
        ({"port": 80, "nodePort": 30001, "protocol": "UDP"}, None),  # of the same port: it is shared
    ],
)
async def test_a_node_port_asked_for_twice(ask, second, said):
    ports = [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", **second}]
    code, answer = await ask(
        "POST", SERVICES, {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}}
    )
    assert code == 201 if said is None else (code, said in answer["message"]) == (422, True)


async def test_an_update_may_not_double_a_node_port(ask):
    ports = [{"name": "a", "port": 80, "nodePort": 30001}]
    _, made = await ask("POST", SERVICES, {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}})
    made["spec"]["ports"].append({"name": "b", "port": 81, "nodePort": 30001})
    code, answer = await ask("PUT", f"{SERVICES}/a", made)
    assert (code, answer["message"]) == (500, "duplicate nodePort: {TCP 30001}")


async def test_a_dry_run_may_ask_for_ports_beyond_the_range(ask):
    ports = [{"port": 80, "nodePort": 5}]
    asked = {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}}
    assert (await ask("POST", f"{SERVICES}?dryRun=All", asked))[0] == 201
    assert (await ask("POST", SERVICES, asked))[0] == 422


async def test_the_health_check_port_stays(ask):
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": False}
    _, made = await ask("POST", SERVICES, service("a", **spec))
    made["spec"]["healthCheckNodePort"] = 30000 + (made["spec"]["healthCheckNodePort"] + 1) % 3
    code, answer = await ask("PUT", f"{SERVICES}/a", made)
    said = 'Service "a" is invalid: spec.healthCheckNodePort: Forbidden: field is immutable'
    assert (code, answer["message"]) == (422, said)
