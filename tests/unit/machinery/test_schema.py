"""What is known about kinds, and decoding, pruning, defaulting by it."""

from __future__ import annotations

from typing import Any

import pytest

from berg.machinery import bundle, schema
from berg.machinery.resources import builtin, resource
from berg.machinery.status import Obj

DEPLOYMENT = schema.type_of("apps", "v1", "Deployment")
POD = schema.type_of("", "v1", "Pod")
SERVICE = schema.type_of("", "v1", "Service")
assert DEPLOYMENT and POD and SERVICE


def test_resources() -> None:
    pods = resource("pods")
    assert (pods.kind, pods.singular, pods.short_names, pods.categories) == ("Pod", "pod", ("po",), ("all",))
    assert pods.subresources["eviction"].group == "policy"
    assert pods.subresources["exec"].verbs == ("create", "get")
    assert resource("horizontalpodautoscalers.autoscaling").version == "v2"
    assert resource("deployments.apps").subresources["scale"].kind == "Scale"
    assert "watch" not in resource("componentstatuses").verbs
    assert builtin().all[0].root == "/api/v1"


def test_what_v1_37_serves_by_default() -> None:
    served = bundle.group_versions()
    assert served["certificates.k8s.io"] == ["v1"]
    assert builtin().get("certificates.k8s.io", "v1", "podcertificaterequests")
    assert builtin().get("resource.k8s.io", "v1", "devicetaintrules")
    assert "lifecycle.k8s.io" not in served
    disabled = bundle.group_versions(disabled=True)
    assert disabled["resource.k8s.io"] == ["v1", "v1beta2", "v1beta1", "v1alpha3"]
    assert "v1beta1" not in disabled["networking.k8s.io"], "gone in v1.37"


def test_every_resource_has_its_type() -> None:
    for r in bundle.resources(disabled=True):
        assert schema.type_of(r.group, r.version, r.kind), r
        for s in r.subresources.values():
            assert schema.type_of(s.group, s.version, s.kind), s


def test_fields_know_what_they_are() -> None:
    ports = schema.type_named("io.k8s.api.core.v1.Container").fields["ports"]
    assert (ports.list_type, ports.list_keys, ports.patch_key) == (
        "map",
        ("containerPort", "protocol"),
        "containerPort",
    )
    assert ports.item and ports.item.struct
    assert ports.item.struct.fields["protocol"].default == "TCP"
    assert DEPLOYMENT.at("spec", "strategy").patch_strategy == {"retainKeys"}  # type: ignore[union-attr]
    assert DEPLOYMENT.at("spec", "template", "spec", "containers", "image").type == "string"  # type: ignore[union-attr]
    assert POD.at("spec", "containers").go == "[]v1.Container"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"replicas": "x"},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"replicas": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"replicas": 2**31},
            "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"template": {"spec": {"containers": [{"imagePullPolicy": 1}]}}},
            "json: cannot unmarshal number into Go struct field "
            "Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            {"template": {"spec": {"containers": {}}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers "
            "of type []v1.Container",
        ),
        (
            {"template": {"spec": {"volumes": [{"name": "v", "configMap": "x"}]}}},
            "json: cannot unmarshal string into Go struct field "
            "Volume.spec.template.spec.volumes.VolumeSource.configMap of type v1.ConfigMapVolumeSource",
        ),
        ([], "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (
            {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_wrong_types_are_told_as_upstream_does(spec: Any, message: str) -> None:
    assert DEPLOYMENT
    with pytest.raises(schema.WrongType) as fault:
        schema.decode(DEPLOYMENT, {"spec": spec})
    assert str(fault.value) == message


@pytest.mark.parametrize(
    ("spec", "go"),
    [
        ({"ipFamilies": [5]}, "number into Go struct field ServiceSpec.spec.ipFamilies of type v1.IPFamily"),
        ({"ipFamilies": {}}, "object into Go struct field ServiceSpec.spec.ipFamilies of type []v1.IPFamily"),
        ({"externalIPs": [5]}, "number into Go struct field ServiceSpec.spec.externalIPs of type string"),
    ],
)
def test_lists_of_named_strings(spec: Any, go: str) -> None:
    with pytest.raises(schema.WrongType) as fault:
        schema.decode(schema.type_named("io.k8s.api.core.v1.Service"), {"spec": spec})
    assert str(fault.value) == f"json: cannot unmarshal {go}"


def test_wrong_time() -> None:
    assert POD
    with pytest.raises(schema.WrongType) as fault:
        schema.decode(POD, {"metadata": {"creationTimestamp": "today"}})
    assert str(fault.value) == 'parsing time "today" as "2006-01-02T15:04:05Z07:00": cannot parse "today" as "2006"'


def test_unknown_fields() -> None:
    obj = {"metadata": {"foo": 1}, "spec": {"template": {"spec": {"containers": [{"name": "a", "bar": 1}]}}}}
    assert DEPLOYMENT
    assert schema.validate_types(DEPLOYMENT, obj) == [
        'unknown field "metadata.foo"',
        'unknown field "spec.template.spec.containers[0].bar"',
    ]
    assert obj["metadata"] == {"foo": 1}, "validate_types changes nothing"
    schema.decode(DEPLOYMENT, obj)
    assert obj["metadata"] == {}


def test_decoding_is_gos_round_trip() -> None:
    obj: Obj = {
        "metadata": {"labels": {}, "annotations": None, "name": ""},
        "spec": {
            "replicas": 0,
            "minReadySeconds": 0,
            "selector": None,
            "template": {
                "spec": {
                    "containers": [{"name": "a", "resources": {"limits": {"memory": "1024Mi", "cpu": 0.5}}}],
                    "hostNetwork": False,
                }
            },
        },
    }
    assert DEPLOYMENT
    assert schema.decode(DEPLOYMENT, obj) == []
    assert obj == {
        "metadata": {},
        "spec": {
            "replicas": 0,
            "selector": None,
            "strategy": {},
            "template": {
                "metadata": {},
                "spec": {"containers": [{"name": "a", "resources": {"limits": {"memory": "1Gi", "cpu": "500m"}}}]},
            },
        },
        "status": {},
    }


def test_times_become_utc() -> None:
    assert POD
    obj: Obj = {"metadata": {"creationTimestamp": "2020-01-01T02:00:00.5+02:00"}, "spec": {"containers": []}}
    schema.decode(POD, obj)
    assert obj["metadata"]["creationTimestamp"] == "2020-01-01T00:00:00Z"
    assert obj["spec"] == {"containers": None}, "a required list stays; whether it is empty or none is not stored"


def test_required_values_appear() -> None:
    assert SERVICE
    obj: Obj = {"spec": {"ports": [{"port": 1}]}}
    schema.decode(SERVICE, obj)
    assert obj["spec"]["ports"] == [{"port": 1, "targetPort": 0}]
    assert obj["status"] == {"loadBalancer": {}}


# ---- custom resources -----------------------------------------------------------------------------------

WIDGET = schema.type_of_crd(
    "example.com",
    "v1",
    "Widget",
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "default": 1},
                    "port": {"x-kubernetes-int-or-string": True},
                    "list": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}},
                    },
                    "map": {
                        "type": "object",
                        "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}},
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "pod": {
                        "type": "object",
                        "x-kubernetes-embedded-resource": True,
                        "properties": {"spec": {"type": "object"}},
                    },
                    "maybe": {"type": "string", "nullable": True},
                },
            }
        },
    },
)


def test_prune() -> None:
    obj: Obj = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "a", "bad": 1},
        "extra": 1,
        "spec": {
            "list": [{"a": "1", "z": 1}],
            "map": {"k": {"b": "1", "z": 1}},
            "free": {"anything": {"goes": 1}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"gone": 1}},
        },
    }
    assert schema.prune(WIDGET, obj) == [
        "extra",
        "metadata.bad",
        "spec.list[0].z",
        "spec.map.k.z",
        "spec.pod.spec.gone",
    ]
    assert obj["spec"] == {
        "list": [{"a": "1"}],
        "map": {"k": {"b": "1"}},
        "free": {"anything": {"goes": 1}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}},
    }


def test_default_and_nulls() -> None:
    obj: Obj = {"spec": {"size": None, "port": None, "maybe": None, "list": [{}, {"a": "y"}]}}
    schema.drop_nulls(WIDGET, obj)
    assert obj["spec"] == {"size": None, "maybe": None, "list": [{}, {"a": "y"}]}
    schema.default(WIDGET, obj)
    assert obj["spec"] == {"size": 1, "maybe": None, "list": [{"a": "x"}, {"a": "y"}]}


def test_no_schema() -> None:
    bare = schema.type_of_crd("example.com", "v1", "Bare", None, preserve_unknown_fields=True)
    assert schema.prune(bare, {"metadata": {}, "spec": {"a": 1}}) == []
    closed = schema.type_of_crd("example.com", "v1", "Closed", {"type": "object"})
    assert schema.prune(closed, {"metadata": {}, "spec": {"a": 1}}) == ["spec"]


def test_versions_of_the_past() -> None:
    """Objects in old snapshots are read, though nobody serves their version any more."""
    old = schema.type_of("extensions", "v1beta1", "Ingress")
    assert old
    assert old.at("spec", "rules", "http", "paths", "backend", "serviceName").number == 1  # type: ignore[union-attr]
    assert builtin().by_kind("extensions", "v1beta1", "Ingress") is None
    crd = schema.type_of("apiextensions.k8s.io", "v1beta1", "CustomResourceDefinition")
    assert crd
    assert crd.at("spec", "validation", "openAPIV3Schema", "$ref").number == 3  # type: ignore[union-attr]
