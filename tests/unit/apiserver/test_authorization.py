"""Who may do what: RBAC, nodes, escalation, impersonation, reviews."""

from __future__ import annotations

import pytest

from berg.apiserver.auth.authorization import AuthzAttributes
from berg.apiserver.auth.rbac import RBACAuthorizer, Rule, describe, uncovered
from berg.apiserver.http.message import User
from tests.unit.apiserver.served_api import APPLY, Served

RBAC = "/apis/rbac.authorization.k8s.io/v1"
JOE = User("joe", groups=("system:authenticated",))
NODE = User("system:node:n1", groups=("system:nodes", "system:authenticated"))


async def grant(served: Served, rules: list[dict], user: str = "joe") -> None:
    await served.create(f"{RBAC}/clusterroles", {"metadata": {"name": "r"}, "rules": rules})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    await served.create(
        f"{RBAC}/clusterrolebindings", {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": ref}
    )
    await served.clock.advance(0)


async def test_refusal_in_upstreams_words(served: Served) -> None:
    code, refused = await served.ask("GET", "/api/v1/namespaces/default/pods/x/log", user=JOE)
    assert code == 403
    assert refused["message"] == (
        'pods "x" is forbidden: User "joe" cannot get resource "pods/log" in API group "" in the namespace "default"'
    )
    _, refused = await served.ask("GET", "/metrics", user=JOE)
    assert refused["message"] == 'forbidden: User "joe" cannot get path "/metrics"'


async def test_a_binding_works_at_once_and_ends_at_once(served: Served) -> None:
    await grant(served, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    assert (await served.ask("GET", "/api/v1/pods", user=JOE))[0] == 200
    await served.ask("DELETE", f"{RBAC}/clusterrolebindings/b")
    await served.clock.advance(0)
    assert (await served.ask("GET", "/api/v1/pods", user=JOE))[0] == 403


async def test_nobody_grants_what_he_has_not(served: Served) -> None:
    await grant(
        served,
        [
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        ],
    )
    own = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    assert (await served.ask("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "x"}, "rules": [own]}, user=JOE))[
        0
    ] == 201
    more = {"metadata": {"name": "y"}, "rules": [{**own, "verbs": ["get", "list"]}]}
    code, refused = await served.ask("POST", f"{RBAC}/clusterroles", more, user=JOE)
    assert code == 403
    assert refused["message"].endswith(
        'attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["list"]}'
    )
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "z"}, "roleRef": ref, "subjects": []}
    assert (await served.ask("POST", f"{RBAC}/namespaces/default/rolebindings", binding, user=JOE))[0] == 403


async def test_nodes_read_what_their_pods_use(served: Served) -> None:
    namespace = "/api/v1/namespaces/default"
    await served.create(f"{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
    for name in ("mine", "other"):
        await served.create(f"{namespace}/secrets", {"metadata": {"name": name}})
    volume = {"name": "v", "secret": {"secretName": "mine"}}
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": [volume]}
    await served.create(f"{namespace}/pods", {"metadata": {"name": "p"}, "spec": spec})
    assert (await served.ask("GET", f"{namespace}/secrets/mine", user=NODE))[0] == 200
    code, refused = await served.ask("GET", f"{namespace}/secrets/other", user=NODE)
    assert code == 403 and "no relationship found between node 'n1' and this object" in refused["message"]
    assert (await served.ask("GET", f"{namespace}/secrets", user=NODE))[0] == 403
    assert (await served.ask("GET", "/api/v1/nodes/n2", user=NODE))[0] == 403
    assert (await served.ask("GET", "/api/v1/nodes/n1", user=NODE))[0] == 404


async def test_impersonation_must_be_allowed(served: Served) -> None:
    code, who = await served.ask(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"},
        impersonate_user="eve",
        impersonate_group="g1\ng2",
    )
    assert code == 201
    assert who["status"]["userInfo"] == {"username": "eve", "groups": ["g1", "g2", "system:authenticated"]}
    code, refused = await served.ask("GET", "/version", user=JOE, impersonate_user="eve")
    assert code == 403 and 'cannot impersonate-on:user-info:get path "/version"' in refused["message"]


async def test_reviews(served: Served) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    asked = {"verb": "get", "resource": "pods", "namespace": "default"}
    _, answer = await served.ask("POST", path, {"spec": {"user": "joe", "resourceAttributes": asked}})
    assert answer["status"] == {"allowed": False}
    await grant(served, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    _, answer = await served.ask("POST", path, {"spec": {"user": "joe", "resourceAttributes": asked}})
    assert answer["status"] == {
        "allowed": True,
        "reason": 'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "joe"',
    }
    code, refused = await served.ask("POST", path, {"spec": {"user": "joe"}})
    assert code == 422 and "exactly one of nonResourceAttributes or resourceAttributes" in refused["message"]


async def test_service_account_tokens_die_with_what_they_are_bound_to(served: Served) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await served.create(accounts, {"metadata": {"name": "a"}})
    _, given = await served.ask("POST", f"{accounts}/a/token", {"spec": {"expirationSeconds": 600}})
    token = given["status"]["token"]
    review = {"spec": {"token": token}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    _, answer = await served.ask("POST", path, review)
    assert answer["status"]["user"]["username"] == "system:serviceaccount:default:a"
    assert (await served.ask("GET", "/version", user=None, authorization=f"Bearer {token}"))[0] == 200
    await served.clock.advance(661)  # a minute is left to clocks that differ
    assert (await served.ask("GET", "/version", user=None, authorization=f"Bearer {token}"))[0] == 401
    _, given = await served.ask("POST", f"{accounts}/a/token", {"spec": {}})
    await served.ask("DELETE", f"{accounts}/a")
    header = f"Bearer {given['status']['token']}"
    assert (await served.ask("GET", "/version", user=None, authorization=header))[0] == 401
    code, _ = await served.ask("GET", "/version", user=None)
    assert code == 200  # anonymous may see this


@pytest.mark.parametrize(
    ("rule", "asked", "allowed"),
    [
        ({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, ("get", "", "pods", "", "x"), True),
        ({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, ("get", "", "pods", "log", "x"), False),
        ({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}, ("get", "", "pods", "log", "x"), True),
        ({"apiGroups": [""], "resources": ["*/log"], "verbs": ["*"]}, ("get", "", "pods", "log", "x"), True),
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}, ("get", "apps", "x", "y", ""), True),
        ({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]}, ("get", "", "pods", "", ""), False),
        (
            {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["get"]},
            ("get", "", "pods", "", "y"),
            False,
        ),
    ],
)
def test_rules(rule: dict, asked: tuple[str, str, str, str, str], allowed: bool) -> None:
    verb, group, resource, subresource, name = asked
    a = AuthzAttributes(JOE, verb, group, "v1", resource, subresource, "default", name)
    assert Rule(rule).covers(a) is allowed


def test_pieces_that_are_not_covered() -> None:
    wanted = [Rule({"apiGroups": ["", "apps"], "resources": ["a"], "verbs": ["get", "list"]})]
    owned = [Rule({"apiGroups": ["*"], "resources": ["a"], "verbs": ["get"]})]
    missing = [describe(p) for p in uncovered(owned, wanted)]
    assert missing == [
        '{APIGroups:[""], Resources:["a"], Verbs:["list"]}',
        '{APIGroups:["apps"], Resources:["a"], Verbs:["list"]}',
    ]


def test_a_missing_role_is_the_reason() -> None:
    ref = {"kind": "ClusterRole", "name": "gone"}
    binding = {"metadata": {"name": "b"}, "roleRef": ref, "subjects": [{"kind": "User", "name": "joe"}]}
    rbac = RBACAuthorizer(lambda plural: [binding] if plural == "clusterrolebindings" else [])
    verdict = rbac.authorize(AuthzAttributes(JOE, "get", resource="pods"))
    assert not verdict.allowed
    assert verdict.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found'


async def test_nodes_list_only_their_own_pods(served: Served) -> None:
    assert (await served.ask("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", user=NODE))[0] == 200
    for selector in ("", "?fieldSelector=spec.nodeName%3Dn2", "?fieldSelector=spec.nodeName!%3Dn1"):
        code, refused = await served.ask("GET", f"/api/v1/pods{selector}", user=NODE)
        assert code == 403
        assert refused["message"].endswith("can only list/watch pods with spec.nodeName field selector")
    assert (await served.ask("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", user=NODE))[0] == 200
    assert (await served.ask("GET", "/api/v1/nodes", user=NODE))[0] == 403


async def test_reading_rights_do_nothing_but_read(served: Served) -> None:
    """A subresource that acts is reached by the verb that its action needs, not by another that one may have."""
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pods = "/api/v1/namespaces/default/pods"
    await served.create(pods, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    await grant(
        served,
        [{"apiGroups": [""], "resources": ["pods/eviction", "serviceaccounts/token"], "verbs": ["get", "update"]}],
    )
    eviction = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}}
    for method in ("GET", "PUT"):
        assert (await served.ask(method, f"{pods}/p/eviction", eviction, user=JOE))[0] == 405
        token = "/api/v1/namespaces/default/serviceaccounts/default/token"
        assert (await served.ask(method, token, {}, user=JOE))[0] == 405
    assert (await served.ask("GET", f"{pods}/p"))[0] == 200


async def test_creating_by_apply_needs_the_right_to_create(served: Served) -> None:
    await grant(served, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "get"]}])
    path = "/api/v1/namespaces/default/configmaps/a?fieldManager=x"
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    code, refused = await served.patch(path, applied, APPLY, user=JOE)
    assert code == 403 and 'cannot create resource "configmaps"' in refused["message"]
    assert (await served.patch(path, applied, APPLY))[0] == 201
    assert (await served.patch(path, {**applied, "data": {"k": "v", "l": "w"}}, APPLY, user=JOE))[0] == 200


async def test_watching_one_by_path_shows_one(served: Served) -> None:
    for name in ("a", "b"):
        await served.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": name}})
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["watch", "list"]}
    await grant(served, [rule])
    events = await served.watch("/api/v1/watch/namespaces/default/configmaps/a?timeoutSeconds=1", 1)
    assert [e["object"]["metadata"]["name"] for e in events] == ["a"]
    code, _ = await served.ask("GET", "/api/v1/namespaces/default/configmaps", user=JOE)
    assert code == 403
    listed = await served.get("/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Da", user=JOE)
    assert [i["metadata"]["name"] for i in listed["items"]] == ["a"]


async def test_attempts_are_counted(served: Served) -> None:
    await served.raw("GET", "/version", user=None)
    await served.raw("GET", "/version", user=None, authorization="Bearer wrong")
    await served.raw("GET", "/api/v1/pods", user=JOE)
    metrics = (await served.raw("GET", "/metrics")).body.decode()
    for line in (
        'authentication_attempts{result="success"} 1',
        'authentication_attempts{result="error"} 1',
        'authenticated_user_requests{username="other"} 1',
        'authorization_attempts_total{result="allowed"} 2',
        'authorization_attempts_total{result="no-opinion"} 1',
    ):
        assert f"\n{line}\n" in metrics
