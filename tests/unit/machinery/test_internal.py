"""Objects as upstream's internal structs write them; the expectations are its answers (v1.36.2)."""

import json

import pytest

from berg.machinery import internal
from berg.machinery.internal import declaration, difference, go_name, struct_as_internal
from berg.machinery.typedef import type_named

CORE = "io.k8s.api.core.v1."


@pytest.mark.parametrize(
    ("name", "go"), [("podIP", "PodIP"), ("apiGroup", "APIGroup"), ("cidrs", "CIDRs"), ("uid", "UID")]
)
def test_go_names(name, go):
    assert go_name(name) == go


@pytest.mark.parametrize(
    ("name", "value", "go"),
    [
        ("Taint", {"key": "a"}, '{"Key":"a","Value":"","Effect":"","TimeAdded":null}'),
        ("LabelSelector", {"matchLabels": {"a": "b"}}, '{"matchLabels":{"a":"b"}}'),
        ("ObjectFieldSelector", {"fieldPath": "p", "apiVersion": "v1"}, '{"APIVersion":"v1","FieldPath":"p"}'),
        ("PodTemplateSpec", {"metadata": {"labels": {"b": "", "a": ""}}}, '{"labels":{"a":"","b":""},"Spec":{'),
        ("RBDVolumeSource", {"image": "i"}, '{"CephMonitors":null,"RBDImage":"i","FSType":"","RBDPool":"",'),
        ("Capabilities", {"Add": ["A"]}, '{"Add":["A"]}'),
    ],
)
def test_structs(name, value, go):
    home = "io.k8s.apimachinery.pkg.apis.meta.v1." if name == "LabelSelector" else CORE
    text = json.dumps(struct_as_internal(type_named(home + name), value), separators=(",", ":"))
    assert text.startswith(go) if go[-1] in "{," else text == go


def test_what_concerns_the_host_is_part_of_a_pods_security_context():
    context = struct_as_internal(type_named(CORE + "PodSpec"), {"hostPID": True, "securityContext": {}})
    assert list(context["SecurityContext"].items())[:5] == [
        ("HostNetwork", False),
        ("HostPID", True),
        ("HostIPC", False),
        ("ShareProcessNamespace", None),
        ("HostUsers", None),
    ]
    assert "HostPID" not in context


def test_a_field_younger_than_the_declarations_has_a_place():
    names = [name for name, _, _ in declaration(type_named(CORE + "ClusterTrustBundleProjection"))]
    assert names[:5] == ["Name", "SignerName", "LabelSelector", "Optional", "Path"]
    assert set(names[5:]) <= {"User"}


def test_difference():
    old, new = ({"key": k, "value": "<", "effect": "NoSchedule"} for k in ("a", "b"))
    assert difference(CORE + "Taint", old, new) == (
        '@@ -1,5 +1,5 @@\n {\n- "Key": "a",\n+ "Key": "b",\n  "Value": "\\u003c",\n  "Effect": "NoSchedule",\n'
        '  "TimeAdded": null\n'
    )
    assert difference(CORE + "Taint", old, old) == ""


def test_very_long_texts_differ_in_one_place(monkeypatch):
    monkeypatch.setattr(internal, "MANY_LINES", 5)
    old, new = ({"key": k, "value": "", "effect": "NoSchedule"} for k in ("a", "b"))
    assert difference(CORE + "Taint", old, new) == '@@ -2,1 +2,1 @@\n- "Key": "a",\n+ "Key": "b",\n'
