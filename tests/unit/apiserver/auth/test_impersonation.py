"""Acting as somebody else: by the right to do so for everything, or only for some of it."""

from __future__ import annotations

from typing import Any

import pytest

from berg.apiserver.http.message import User
from tests.unit.apiserver.served_api import Served

JOE = User("joe", groups=("system:authenticated",))
RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTHN = "authentication.k8s.io"
ON_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["impersonate-on:user-info:list"]}


async def _grant(served: Served, *rules: Any, user: str = "joe", name: str = "r") -> None:
    await served.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    body = {"metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}
    await served.create(f"{RBAC}/clusterrolebindings", body)


def _as(mode: str, resource: str, *names: str, group: str = AUTHN) -> Any:
    verb = f"impersonate:{mode}" if mode else "impersonate"
    rule = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
    return {**rule, "resourceNames": list(names)} if names else rule


async def _list(served: Served, user: User = JOE, **headers: str) -> tuple[int, str]:
    code, answer = await served.ask("GET", "/api/v1/namespaces/default/pods", user=user, **headers)
    return code, answer.get("message", "")


async def test_the_right_for_everything(served: Served) -> None:
    await _grant(served, _as("", "users", "eve", group=""), _as("", "groups", "system:masters", group=""))
    assert (await _list(served, impersonate_user="eve", impersonate_group="system:masters"))[0] == 200
    assert (await _list(served, impersonate_user="mallory"))[0] == 403


async def test_the_right_for_some_requests(served: Served) -> None:
    await _grant(served, _as("user-info", "users", "eve"), ON_PODS)
    await _grant(served, {"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}, user="eve", name="e")
    assert (await _list(served, impersonate_user="eve"))[0] == 200
    code, answer = await served.ask("GET", "/api/v1/namespaces/default/secrets", user=JOE, impersonate_user="eve")
    assert code == 403
    assert 'User "joe" cannot impersonate-on:user-info:list resource "secrets"' in answer["message"]
    code, message = await _list(served, impersonate_user="mallory")
    assert 'users.authentication.k8s.io "mallory" is forbidden: User "joe" cannot impersonate:user-info' in message


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"impersonate_group": "system:masters"}, "impersonating the system:masters group is not allowed"),
        ({"impersonate_group": "a\n"}, "impersonating the empty string group is not allowed"),
        ({"impersonate_extra_scopes": "x"}, "impersonating an invalid key in extra is not allowed: extra.key: Invalid"),
        ({"impersonate_extra_acme.org%2fx": ""}, "impersonating the empty string value in extra is not allowed"),
    ],
)
async def test_what_a_constrained_right_never_gives(served: Served, headers: dict[str, str], why: str) -> None:
    await _grant(
        served, _as("user-info", "users"), _as("user-info", "groups"), _as("user-info", "userextras/*"), ON_PODS
    )
    code, message = await _list(served, impersonate_user="eve", **headers)
    assert code == 403
    assert why in message


async def test_service_accounts_and_nodes(served: Served) -> None:
    on = [{**ON_PODS, "verbs": [f"impersonate-on:{m}:list" for m in ("serviceaccount", "arbitrary-node")]}]
    rules = [_as("serviceaccount", "serviceaccounts", "a"), _as("arbitrary-node", "nodes", "n1"), *on]
    await _grant(served, *rules)
    await _grant(served, {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}, name="sa", user="nobody")
    _, message = await _list(served, impersonate_user="system:serviceaccount:default:a")
    assert 'User "system:serviceaccount:default:a" cannot list resource "pods"' in message
    _, message = await _list(served, impersonate_user="system:serviceaccount:default:b")
    assert 'User "joe" cannot impersonate:serviceaccount resource "serviceaccounts"' in message
    _, message = await _list(served, impersonate_user="system:node:n1")
    assert "can only list/watch pods with spec.nodeName field selector" in message
    _, message = await _list(served, impersonate_user="system:node:n1", impersonate_group="x")
    assert 'User "joe" cannot impersonate resource "users"' in message


async def test_a_pods_account_as_its_own_node(served: Served) -> None:
    account = "system:serviceaccount:default:agent"
    on = {**ON_PODS, "verbs": ["impersonate-on:associated-node:list"]}
    await _grant(served, _as("associated-node", "nodes"), on, user=account)
    here = User(account, extra={"authentication.kubernetes.io/node-name": ["n1"]})
    _, message = await _list(served, here, impersonate_user="system:node:n1")
    assert "can only list/watch pods with spec.nodeName field selector" in message
    _, message = await _list(served, here, impersonate_user="system:node:n2")
    assert f'User "{account}" cannot impersonate-on:arbitrary-node:list' in message


async def test_headers_without_a_user(served: Served) -> None:
    code, answer = await served.ask(
        "GET", "/version", impersonate_uid="7", impersonate_group="a\nb", impersonate_extra_k="v"
    )
    assert code == 400
    assert answer["message"] == (
        'requested &user.DefaultInfo{Name:"", UID:"7", Groups:[]string{"a", "b"}, '
        'Extra:map[string][]string{"k":[]string{"v"}}} without impersonating a user name'
    )


async def test_groups_that_come_with_the_name(served: Served) -> None:
    body = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

    async def groups(name: str) -> list[str]:
        _, answer = await served.ask("POST", path, body, impersonate_user=name)
        return list(answer["status"]["userInfo"]["groups"])

    assert await groups("system:serviceaccount:ns:a") == [
        "system:serviceaccounts",
        "system:serviceaccounts:ns",
        "system:authenticated",
    ]
    assert await groups("system:node:n1") == ["system:nodes", "system:authenticated"]
    assert await groups("eve") == ["system:authenticated"]
