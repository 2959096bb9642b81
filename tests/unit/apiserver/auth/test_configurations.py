"""AuthenticationConfiguration, AuthorizationConfiguration and ABAC policies: what upstream says about wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from berg.apiserver.auth import authentication_config, authorization_config
from berg.apiserver.auth.abac import ABACAuthorizer
from berg.apiserver.auth.authorization import AuthzAttributes
from berg.apiserver.auth.configuration_file import BadConfiguration
from berg.apiserver.config import Config
from berg.apiserver.http.message import User
from berg.machinery.status import Obj

ISSUER = {"url": "https://idp.example", "audiences": ["berg"]}
MAPPINGS = {"username": {"claim": "sub", "prefix": ""}}


def _jwt(**change: Any) -> Obj:
    return {"issuer": ISSUER, "claimMappings": MAPPINGS, **change}


@pytest.mark.parametrize(
    ("jwt", "why"),
    [
        (_jwt(), []),
        (
            _jwt(issuer={"url": "http://a:b@x?q#f"}),
            [
                'jwt[0].issuer.url: Invalid value: "http://a:b@x?q#f": URL scheme must be https',
                'jwt[0].issuer.url: Invalid value: "http://a:b@x?q#f": URL must not contain a username or password',
                'jwt[0].issuer.url: Invalid value: "http://a:b@x?q#f": URL must not contain a query',
                'jwt[0].issuer.url: Invalid value: "http://a:b@x?q#f": URL must not contain a fragment',
                "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
            ],
        ),
        (
            _jwt(issuer={**ISSUER, "audiences": ["a", "a"], "discoveryURL": "https://idp.example/"}),
            [
                'jwt[0].issuer.discoveryURL: Invalid value: "https://idp.example/": discoveryURL must be different '
                "from URL",
                'jwt[0].issuer.audiences[1]: Duplicate value: "a"',
                'jwt[0].issuer.audienceMatchPolicy: Invalid value: "": audienceMatchPolicy must be MatchAny for '
                "multiple audiences",
            ],
        ),
        (
            _jwt(issuer={**ISSUER, "url": "https://own"}),
            [
                'jwt[0].issuer.url: Invalid value: "https://own": URL must not overlap with disallowed issuers: '
                "[https://own]"
            ],
        ),
        (
            _jwt(claimMappings={"username": {"claim": "sub"}, "groups": {"claim": "g", "expression": "claims.g"}}),
            [
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can "
                "be set to an empty string to disable prefixing",
                'jwt[0].claimMappings.groups: Invalid value: "": claim and expression can\'t both be set',
            ],
        ),
        (
            _jwt(claimMappings={"username": {"expression": "clams.sub"}}),
            [
                'jwt[0].claimMappings.username.expression: Invalid value: "clams.sub": compilation failed: ERROR: '
                "<input>:1:1: undeclared reference to 'clams' (in container '')\n | clams.sub\n | ^"
            ],
        ),
        (
            _jwt(claimMappings={"username": {"expression": "claims.email"}}),
            [
                'jwt[0].claimMappings.username.expression: Invalid value: "claims.email": claims.email_verified must '
                "be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or "
                "claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"
            ],
        ),
        (
            _jwt(
                claimMappings={"username": {"expression": "claims.email"}},
                claimValidationRules=[{"expression": "claims.?email_verified.orValue(true) == true"}],
            ),
            [],
        ),
        (
            _jwt(
                claimMappings={
                    **MAPPINGS,
                    "extra": [
                        {"key": "Foo", "valueExpression": "claims.a"},
                        {"key": "x.k8s.io/a", "valueExpression": ""},
                        {"key": "example.org/a", "valueExpression": "claims.a"},
                        {"key": "example.org/a", "valueExpression": "claims.a"},
                    ],
                }
            ),
            [
                'jwt[0].claimMappings.extra[0].key: Invalid value: "Foo": must be a domain-prefixed path (such as '
                '"acme.io/foo")',
                'jwt[0].claimMappings.extra[0].key: Invalid value: "Foo": must be lowercase',
                'jwt[0].claimMappings.extra[1].key: Invalid value: "x.k8s.io/a": k8s.io, kubernetes.io and their '
                "subdomains are reserved for Kubernetes use",
                "jwt[0].claimMappings.extra[1].valueExpression: Required value",
                'jwt[0].claimMappings.extra[3].key: Duplicate value: "example.org/a"',
            ],
        ),
        (
            _jwt(
                claimValidationRules=[
                    {},
                    {"claim": "a", "expression": "true"},
                    {"claim": "a", "message": "m"},
                    {"claim": "a"},
                    {"expression": "claims.a", "requiredValue": "v"},
                ],
                userValidationRules=[{}, {"expression": "user.nome == 'x'"}],
            ),
            [
                "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
                'jwt[0].claimValidationRules[1]: Invalid value: "a": claim and expression can\'t both be set',
                'jwt[0].claimValidationRules[2].message: Invalid value: "m": may not be specified when claim is set',
                'jwt[0].claimValidationRules[3].claim: Duplicate value: "a"',
                'jwt[0].claimValidationRules[4].requiredValue: Invalid value: "v": may not be specified when '
                "expression is set",
                'jwt[0].claimValidationRules[4].expression: Invalid value: "claims.a": must evaluate to bool',
                "jwt[0].userValidationRules[0].expression: Required value",
                "jwt[0].userValidationRules[1].expression: Invalid value: \"user.nome == 'x'\": compilation failed: "
                "ERROR: <input>:1:5: undefined field 'nome'\n | user.nome == 'x'\n | ....^",
            ],
        ),
    ],
)
def test_jwt_authenticators(jwt: Obj, why: list[str]) -> None:
    assert list(map(str, authentication_config.validate({"jwt": [jwt]}, ["https://own"]))) == why


def test_anonymous_and_what_is_there_twice() -> None:
    obj = {"jwt": [_jwt(), _jwt()], "anonymous": {"enabled": False, "conditions": [{"path": "/livez"}]}}
    assert list(map(str, authentication_config.validate(obj))) == [
        'jwt[1].issuer.url: Duplicate value: "https://idp.example"',
        'anonymous.conditions: Invalid value: [{"Path":"/livez"}]: enabled should be set to true when conditions are '
        "defined",
    ]
    too_many = authentication_config.validate({"jwt": [_jwt()] * 65})
    assert list(map(str, too_many)) == ["jwt: Too many: 65: must have at most 64 items"]


def _file(tmp_path: Path, obj: Any) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(obj if isinstance(obj, str) else yaml.safe_dump(obj))
    return str(path)


HEAD = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "empty config data"),
        (
            {**HEAD, "apiVersion": "apiserver.config.k8s.io/v9"},
            'no kind "AuthenticationConfiguration" is registered for version "apiserver.config.k8s.io/v9"',
        ),
        (
            {**HEAD, "jwt": [{"issuer": {"URL": "x"}}], "more": 1},
            'strict decoding error: unknown field "jwt[0].issuer.URL", unknown field "more"',
        ),
    ],
)
def test_files_are_decoded_strictly(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        authentication_config.load(_file(tmp_path, content))
    assert str(caught.value) == why


def test_the_flags_make_the_same_configuration() -> None:
    config = Config(
        oidc_issuer_url="https://idp.example",
        oidc_client_id="berg",
        oidc_groups_claim="roles",
        oidc_groups_prefix="oidc:",
        oidc_required_claim={"hd": "x"},
    )
    assert authentication_config.of(config)["jwt"] == [
        {
            "issuer": {"url": "https://idp.example", "audiences": ["berg"]},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": "https://idp.example#"},
                "groups": {"claim": "roles", "prefix": "oidc:"},
            },
            "claimValidationRules": [{"claim": "hd", "requiredValue": "x"}],
        }
    ]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (
            {"oidc_client_id": "x"},
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set",
        ),
        (
            {"oidc_issuer_url": "https://x", "oidc_client_id": "x", "authentication_config": "FILE"},
            "authentication-config file and oidc-* flags are mutually exclusive",
        ),
        (
            {"anonymous_auth": False, "authentication_config": "FILE"},
            "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in "
            "authentication configuration file",
        ),
    ],
)
def test_flags_that_contradict_each_other(tmp_path: Path, flags: dict[str, Any], why: str) -> None:
    file = _file(tmp_path, {**HEAD, "anonymous": {"enabled": True}})
    flags = {k: file if v == "FILE" else v for k, v in flags.items()}
    with pytest.raises(BadConfiguration) as caught:
        authentication_config.of(Config(**flags))
    assert str(caught.value) == why


# ---- authorization


def _webhook(tmp_path: Path, **change: Any) -> Obj:
    file = tmp_path / "kubeconfig"
    file.touch()
    webhook = {
        "timeout": "3s",
        "authorizedTTL": "5m",
        "unauthorizedTTL": "30s",
        "subjectAccessReviewVersion": "v1",
        "failurePolicy": "Deny",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": str(file)},
        **change,
    }
    return {"type": "Webhook", "name": "w", "webhook": webhook}


def test_authorizers(tmp_path: Path) -> None:
    authorizers = [
        {"type": "RBAC", "name": "rbac"},
        {"type": "RBAC", "name": "rbac2"},
        {"type": "Own", "name": "own"},
        {"type": "Node", "name": "rbac", "webhook": {}},
        {"name": "x"},
        {"type": "Webhook", "name": "Not/Good"},
        _webhook(
            tmp_path,
            timeout="31s",
            authorizedTTL="-1s",
            unauthorizedTTL="0s",
            subjectAccessReviewVersion="v2",
            failurePolicy="",
            connectionInfo={"type": "KubeConfigFile", "kubeConfigFile": "relative"},
            matchConditions=[{"expression": "request.user == 'a'"}, {"expression": " "}, {"expression": "req.user"}],
        ),
    ]
    assert list(map(str, authorization_config.validate({"authorizers": authorizers}))) == [
        'authorizers[1].type: Duplicate value: "RBAC"',
        'authorizers[2].type: Unsupported value: "Own": supported values: "ABAC", "AlwaysAllow", "AlwaysDeny", '
        '"Node", "RBAC", "Webhook"',
        'authorizers[3].name: Duplicate value: "rbac"',
        'authorizers[3].webhook: Invalid value: "non-null": may only be specified when type=Webhook',
        "authorizers[4].type: Required value",
        'authorizers[5].name: Invalid value: "Not/Good": authorizer name is invalid: a lowercase RFC 1123 subdomain '
        "must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
        "character (e.g. 'example.com', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        "authorizers[5].webhook: Required value: required when type=Webhook",
        'authorizers[6].timeout: Invalid value: "31s": must be > 0s and <= 30s',
        'authorizers[6].authorizedTTL: Invalid value: "-1s": must be > 0s',
        "authorizers[6].unauthorizedTTL: Required value",
        'authorizers[6].subjectAccessReviewVersion: Unsupported value: "v2": supported values: "v1", "v1beta1"',
        "authorizers[6].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are "
        "specified",
        "authorizers[6].failurePolicy: Required value",
        'authorizers[6].connectionInfo.kubeConfigFile: Invalid value: "relative": must be an absolute path',
        "authorizers[6].matchConditions[1].expression: Required value",
        'authorizers[6].matchConditions[2].expression: Invalid value: "req.user": compilation failed: ERROR: '
        "<input>:1:1: undeclared reference to 'req' (in container '')\n | req.user\n | ^",
    ]
    assert list(authorization_config.validate({"authorizers": [_webhook(tmp_path)]})) == []
    assert list(map(str, authorization_config.validate({}))) == [
        "authorizers: Required value: at least one authorization mode must be defined"
    ]


def test_names_of_built_in_authorizers_are_given(tmp_path: Path) -> None:
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration"}
    file = _file(tmp_path, {**head, "authorizers": [{"type": "RBAC", "name": "mine"}]})
    with pytest.raises(BadConfiguration) as caught:
        authorization_config.load(file, ["Node"])
    assert (
        str(caught.value) == "[expected name rbac for authorizer RBAC instead of mine, missing required types: [Node]]"
    )


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"authorization_mode": ["RBAC", "Own"]}, 'authorization-mode "Own" is not a valid mode'),
        (
            {"authorization_mode": ["RBAC", "RBAC"]},
            'authorization-mode ["RBAC" "RBAC"] has mode specified more than once',
        ),
        ({"authorization_mode": ["ABAC"]}, "authorization-mode ABAC's authorization policy file not passed"),
        ({"authorization_mode": ["Webhook"]}, "authorization-mode Webhook's authorization config file not passed"),
        ({"authorization_policy_file": "x"}, "cannot specify --authorization-policy-file without mode ABAC"),
        (
            {"authorization_webhook_config_file": "x"},
            "cannot specify --authorization-webhook-config-file without mode Webhook",
        ),
        (
            {"authorization_mode": ["RBAC"], "authorization_config": "x"},
            "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags "
            "are defined",
        ),
    ],
)
def test_modes(flags: dict[str, Any], why: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        authorization_config.of(Config(**flags))
    assert str(caught.value) == why


# ---- ABAC


def _abac(tmp_path: Path, *lines: str) -> ABACAuthorizer:
    path = tmp_path / "policy.jsonl"
    path.write_text("# comment\n\n" + "\n".join(lines))
    return ABACAuthorizer.read(str(path))


def _line(**spec: Any) -> str:
    import json

    return json.dumps({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec})


def _asked(user: str, verb: str, resource: str = "", namespace: str = "", path: str = "", *groups: str) -> Any:
    who = User(user, groups=groups)
    if path:
        return AuthzAttributes(who, verb, path=path, is_resource=False)
    return AuthzAttributes(who, verb, "", "v1", resource, "", namespace)


def test_policies_of_abac(tmp_path: Path) -> None:
    abac = _abac(
        tmp_path,
        _line(user="alice", namespace="*", resource="*", apiGroup="*"),
        _line(user="kubelet", namespace="*", resource="pods", readonly=True),
        _line(group="dev", nonResourcePath="/logs/*"),
        _line(user="*", namespace="public", resource="configmaps", readonly=True),
        '{"user": "old", "namespace": "projectCaribou"}',
    )

    def may(*asked: Any) -> bool:
        return abac.authorize(_asked(*asked)).allowed

    assert may("alice", "delete", "secrets", "x")
    assert may("kubelet", "get", "pods", "x")
    assert not may("kubelet", "delete", "pods", "x")
    assert not may("bob", "get", "", "", "/logs/a")
    assert may("bob", "get", "", "", "/logs/a", "dev")
    assert not may("bob", "get", "", "", "/metrics", "dev")
    assert may("bob", "list", "configmaps", "public", "", "system:authenticated")
    assert not may("system:anonymous", "list", "configmaps", "public", "", "system:unauthenticated")
    assert may("old", "delete", "anything", "projectCaribou")
    assert not may("old", "get", "", "", "/healthz")
    assert abac.authorize(_asked("nobody", "get", "pods", "x")).reason == "No policy matched."
    assert abac.rules_for(User("kubelet"), "x") == (
        [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]}],
        [],
    )


def test_a_line_that_is_no_policy_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="line 3: nonsense"):
        _abac(tmp_path, "nonsense")
