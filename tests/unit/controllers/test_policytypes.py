"""Types of policies' expressions: the warnings are upstream's controller's for the same policies."""

from __future__ import annotations

from typing import Any

from berg.controllers.policytypes import custom_versions, warnings


def policy(
    *expressions: str, groups: Any = ("apps",), resources: Any = ("deployments",), version: str = "v1", **spec: Any
) -> dict[str, Any]:
    rule = {"apiGroups": list(groups), "apiVersions": [version], "operations": ["*"], "resources": list(resources)}
    validations = [{"expression": e} for e in expressions]
    return {"spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": validations, **spec}}


def test_a_mismatch_is_told_for_each_kind() -> None:
    of = policy("object.spec.replicas > 'x'", "object.spec.replicas > 1", "object.metadata.name == 'x'")
    assert warnings(of, {}) == [
        {
            "fieldRef": "spec.validations[0].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to "
            "'(int, string)'\n | object.spec.replicas > 'x'\n | .....................^\n",
        }
    ]


def test_only_kinds_that_lack_it_are_named() -> None:
    of = policy("object.spec.replicas > 1", groups=("", "apps"), resources=("pods", "deployments"))
    (found,) = warnings(of, {})
    assert found["warning"].startswith("/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n")
    assert "Deployment" not in found["warning"]


def test_what_is_not_named_outright_is_not_checked() -> None:
    for groups, resources in ((("*",), ("deployments",)), (("apps",), ("*",)), (("apps",), ("deployments/scale",))):
        assert warnings(policy("object.nope", groups=groups, resources=resources), {}) == []


def test_variables_have_the_types_of_their_expressions() -> None:
    variables = [{"name": "x", "expression": "object.spec.replicas"}, {"name": "y", "expression": "object.nope"}]
    (found,) = warnings(policy("variables.x == 'a'", "variables.y", "variables.x > 1", variables=variables), {})
    assert found["fieldRef"] == "spec.validations[0].expression"
    assert "applied to '(int, string)'" in found["warning"]


def test_parameters_and_dates() -> None:
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    dated = "object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')"
    of = policy("params.data.x > 1", dated, paramKind=kind)
    (found,) = warnings(of, {})
    assert "'_>_' applied to '(string, int)'" in found["warning"]


def test_custom_kinds() -> None:
    of = policy("object.spec.z == 1", "object.metadata.labels.a == 'b'", groups=("x.io",), resources=("as",))
    assert custom_versions(of) == {("x.io", "v1")}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
    (found,) = warnings(of, {("x.io", "v1"): {"as": ("A", schema)}})
    assert found["warning"].startswith("x.io/v1, Kind=A: ERROR: <input>:1:12: undefined field 'z'\n")
