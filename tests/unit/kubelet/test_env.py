import base64

import pytest

from berg.kubelet import env
from berg.kubelet.downward import DownwardError, PodFacts, field_value, resource_value
from berg.kubelet.env import EnvError, expand, mapping_of

from .fakes import pod
from .test_volumes import Objects

FACTS = PodFacts(("10.0.0.9", "fd00::9"), ("192.0.2.1",), "n1", {"cpu": "4", "memory": "8Gi"})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("a$(A)b$(A)", "a1b1"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$A", "$A"),
        ("$()", "$()"),
        ("cost: $5 $(A)", "cost: $5 1"),
    ],
)
def test_expansion(text, result):
    assert expand(text, mapping_of({"A": "1"})) == result


SERVICES = [
    {
        "metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
    },
    {
        "metadata": {"namespace": "ns", "name": "my-db"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 53, "protocol": "UDP"}]},
    },
    {"metadata": {"namespace": "ns", "name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
]


def test_service_variables():
    found = env.service_variables(SERVICES, "ns", links=True)
    assert found["MY_DB_SERVICE_HOST"] == "10.96.0.7"
    assert found["MY_DB_PORT_53_UDP"] == "udp://10.96.0.7:53"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert not any(k.startswith("HEADLESS") for k in found)
    assert set(env.service_variables(SERVICES, "ns", links=False)) == {k for k in found if k.startswith("KUBERNETES")}


async def make(one, c, **found):
    return await env.make(one, c, FACTS, Objects(**found), [])


async def test_sources():
    c = {
        "name": "c",
        "resources": {"limits": {"cpu": "1500m"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s", "optional": True}}],
        "env": [
            {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z", "optional": True}}},
            {"name": "X", "value": "$(K)-$(P_a)-$(GONE)"},
        ],
    }
    got = await make(
        pod(containers=[c]), c, cm={"data": {"a": "1"}}, sec={"data": {"pw": base64.b64encode(b"x").decode()}}
    )
    assert got == {"P_a": "1", "K": "1", "S": "x", "N": "n1", "CPU": "1500", "X": "1-1-$(GONE)"}


async def test_what_is_missing_is_said():
    c = {"name": "c", "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]}
    with pytest.raises(EnvError, match=r'^configmap "cm" not found$'):
        await make(pod(), c)
    with pytest.raises(EnvError, match=r"^couldn't find key a in ConfigMap ns/cm$"):
        await make(pod(), c, cm={"data": {}})


def test_fields():
    one = pod()
    one["metadata"]["annotations"] = {"k": "v"}
    assert field_value(one, "metadata.annotations['k']", FACTS) == "v"
    assert field_value(one, "status.podIPs", FACTS) == "10.0.0.9,fd00::9"
    assert field_value(one, "status.hostIP", FACTS) == "192.0.2.1"
    with pytest.raises(DownwardError, match=r"unsupported fieldPath: spec.x"):
        field_value(one, "spec.x", FACTS)


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "0"),
        ("limits.memory", "1Mi", "8192"),
        ("requests.memory", "1", "1000000"),
        ("requests.memory", "1Mi", "1"),
    ],
)
def test_resources(resource, divisor, value):
    c = {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "1M"}}}
    assert resource_value(pod(), c, {"resource": resource, "divisor": divisor}, FACTS) == value
