"""A server with all of it: issuers, webhooks and authorizers from files, read again when the files change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from berg import storage
from berg.apiserver.auth.configuration_file import BadConfiguration
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from tests.unit.apiserver.auth.issuer import AUTHORITY, OpenIDIssuer
from tests.unit.apiserver.served_api import Served

HEAD = "apiserver.config.k8s.io/v1"
WHO = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[OpenIDIssuer]:
    it = OpenIDIssuer(tmp_path)
    await it.start()
    yield it
    await it.stop()


@pytest.fixture
async def serve() -> AsyncIterator[Any]:
    servers: list[APIServer] = []
    stores: list[Any] = []

    async def start(**flags: Any) -> Served:
        stores.append(storage.open("memory:", compaction_interval_s=0))
        await stores[-1].start()
        servers.append(APIServer(Config(secure_port=-1, store=stores[-1], advertise_address="10.0.0.5", **flags)))
        await servers[-1].start()
        return Served(servers[-1], FakeClock())

    yield start
    for server in servers:
        await server.stop()
    for store in stores:
        await store.close()


async def _until(holds: Callable[[], bool]) -> None:
    """Waits for what comes over the network or the file system."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


def _authentication(issuer: OpenIDIssuer, prefix: str, **more: Any) -> str:
    own = {"url": issuer.url, "audiences": ["berg"], "certificateAuthority": AUTHORITY.certificate.decode()}
    jwt = {"issuer": own, "claimMappings": {"username": {"claim": "sub", "prefix": prefix}}}
    return yaml.safe_dump({"apiVersion": HEAD, "kind": "AuthenticationConfiguration", "jwt": [jwt], **more})


async def _who(served: Served, token: str) -> tuple[int, str]:
    code, answer = await served.ask("POST", SELF, WHO, user=None, authorization=f"Bearer {token}")
    return code, answer["status"]["userInfo"]["username"] if code == 201 else ""


async def test_issuers_of_a_file(serve: Any, issuer: OpenIDIssuer, tmp_path: Path) -> None:
    path = tmp_path / "authentication.yaml"
    anonymous = {"enabled": True, "conditions": [{"path": "/livez"}]}
    path.write_text(_authentication(issuer, "a:", anonymous=anonymous))
    served = await serve(authentication_config=str(path))
    methods = served.server.methods
    await _until(lambda: methods._issuers.members[0].fault is None)
    now = methods.config.clock.now().timestamp()
    assert await _who(served, issuer.token(now, sub="jane")) == (201, "a:jane")
    assert (await _who(served, issuer.token(now, sub="jane", aud="other")))[0] == 401
    assert (await served.raw("GET", "/livez", user=None)).status == 200
    assert (await served.raw("GET", "/readyz", user=None)).status == 401

    path.write_text(_authentication(issuer, "b:", anonymous={"enabled": False}))
    await _until(lambda: methods.reloads._counts == {"success": 1})
    assert await _who(served, issuer.token(now, sub="jane", jti="2")) == (201, "b:jane")
    assert (await served.raw("GET", "/livez", user=None)).status == 200  # as it was when the server started

    path.write_text("kind: Nonsense")
    await _until(lambda: methods.reloads._counts == {"success": 1, "failure": 1})
    assert await _who(served, issuer.token(now, sub="jane", jti="3")) == (201, "b:jane")
    metrics = (await served.raw("GET", "/metrics")).body.decode()
    assert 'authentication_config_controller_automatic_reloads_total{apiserver_id_hash="sha256:' in metrics


async def test_the_flags_for_one_issuer(serve: Any, issuer: OpenIDIssuer, tmp_path: Path) -> None:
    ca = tmp_path / "issuer.crt"
    ca.write_bytes(AUTHORITY.certificate)
    served = await serve(oidc_issuer_url=issuer.url, oidc_client_id="berg", oidc_ca_file=str(ca))
    await _until(lambda: served.server.methods._issuers.members[0].fault is None)
    now = served.server.config.clock.now().timestamp()
    assert await _who(served, issuer.token(now, sub="jane")) == (201, f"{issuer.url}#jane")


async def test_a_webhook_for_tokens(serve: Any, issuer: OpenIDIssuer) -> None:
    issuer.answers["/tokens"] = lambda review: {
        "status": {"authenticated": review["spec"]["token"] == "good", "user": {"username": "jane"}}
    }
    served = await serve(authentication_token_webhook_config_file=issuer.kubeconfig("/tokens"))
    assert await _who(served, "good") == (201, "jane")
    assert (await _who(served, "bad"))[0] == 401
    review = {"spec": {"token": "good"}}
    answer = await served.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert answer["status"]["user"] == {"username": "jane", "groups": ["system:authenticated"]}


def _authorization(issuer: OpenIDIssuer, *, failure: str = "NoOpinion") -> str:
    webhook = {
        "timeout": "3s",
        "subjectAccessReviewVersion": "v1",
        "matchConditionSubjectAccessReviewVersion": "v1",
        "failurePolicy": failure,
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": issuer.kubeconfig("/access")},
        "matchConditions": [{"expression": "has(request.resourceAttributes)"}],
    }
    authorizers = [{"type": "Webhook", "name": "w", "webhook": webhook}, {"type": "RBAC", "name": "rbac"}]
    return yaml.safe_dump({"apiVersion": HEAD, "kind": "AuthorizationConfiguration", "authorizers": authorizers})


async def test_authorizers_of_a_file(serve: Any, issuer: OpenIDIssuer, tmp_path: Path) -> None:
    from berg.apiserver.http.message import User

    jane = User("jane", groups=("system:authenticated",))
    said: dict[str, Any] = {"allowed": True}
    issuer.answers["/access"] = lambda _: {"status": said}
    path = tmp_path / "authorization.yaml"
    path.write_text(_authorization(issuer))
    served = await serve(authorization_config=str(path))
    assert (await served.ask("GET", "/api/v1/namespaces/default/pods", user=jane))[0] == 200
    asked = len(issuer.asked)
    assert (await served.ask("GET", "/version", user=jane))[0] == 200  # by RBAC: no resource, so not asked
    assert len(issuer.asked) == asked
    said.clear()
    said.update(denied=True, reason="not today")
    code, answer = await served.ask("GET", "/api/v1/namespaces/default/secrets", user=jane)
    assert code == 403
    assert answer["message"].endswith('in the namespace "default": not today')
    issuer.answers["/access"] = lambda _: 403
    response = await served.raw("GET", "/api/v1/namespaces/default/configmaps", user=jane)
    assert response.status == 500  # nobody allows it, and not everybody could be asked
    assert b'Internal Server Error: "/api/v1/namespaces/default/configmaps": broken' in response.body
    path.write_text(_authorization(issuer, failure="Deny"))
    await _until(lambda: served.server.authorizers.reloads._counts == {"success": 1})
    response = await served.raw("GET", "/api/v1/namespaces/default/services", user=jane)
    assert response.status == 500
    path.write_text("kind: Nonsense")
    await _until(lambda: served.server.authorizers.reloads._counts == {"success": 1, "failure": 1})
    rules = {"spec": {"namespace": "default"}}
    answer = await served.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules)
    assert answer["status"]["evaluationError"] == "webhook authorizer does not support user rule resolution"
    assert answer["status"]["incomplete"] is True


async def test_a_configuration_that_cannot_be_used_starts_no_server(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "authorization.yaml"
    path.write_text("")
    with pytest.raises(BadConfiguration, match="empty config data"):
        await serve(authorization_config=str(path))


async def test_everybody_and_nobody(serve: Any) -> None:
    from berg.apiserver.http.message import User

    joe = User("joe")
    assert (await (await serve(authorization_mode=["AlwaysAllow"])).ask("GET", "/api/v1/pods", user=joe))[0] == 200
    code, answer = await (await serve(authorization_mode=["AlwaysDeny"])).ask("GET", "/api/v1/pods", user=joe)
    assert code == 403
    assert answer["message"].endswith("at the cluster scope: Everything is forbidden.")


async def test_policies_that_ask_wait_for_the_webhook(serve: Any, issuer: OpenIDIssuer, tmp_path: Path) -> None:
    def access(review: dict[str, Any]) -> dict[str, Any]:
        asked = review["spec"]["resourceAttributes"]
        return {"status": {"allowed": asked["resource"] != "secrets", "reason": f"{asked['resource']}?"}}

    issuer.answers["/access"] = access
    path = tmp_path / "authorization.yaml"
    path.write_text(_authorization(issuer))
    served = await serve(authorization_config=str(path))
    group = "/apis/admissionregistration.k8s.io/v1"
    check = "authorizer.group('').resource('{0}').namespace('default').check('get')"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    spec = {
        "matchConstraints": {"resourceRules": rules},
        "variables": [{"name": "why", "expression": check.format("secrets") + ".reason()"}],
        "validations": [
            {"expression": check.format("pods") + ".allowed()", "message": "pods"},
            {
                "expression": check.format("secrets") + ".allowed() && variables.why != ''",
                "messageExpression": "variables.why",
            },
        ],
    }
    await served.create(f"{group}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    await served.create(f"{group}/validatingadmissionpolicybindings", {"metadata": {"name": "p"}, "spec": bound})
    from berg.apiserver.http.message import User

    jane = User("jane", groups=("system:authenticated",))
    body = {"metadata": {"name": "c"}}
    code, answer = await served.ask("POST", "/api/v1/namespaces/default/configmaps", body, user=jane)
    assert code == 422
    assert answer["message"].endswith("denied request: secrets?")


async def test_privileged_containers_can_be_refused(serve: Any) -> None:
    from berg.apiserver.kinds.core.pod_spec.security import Capabilities

    served = await serve(allow_privileged=False, disable_admission_plugins=["ServiceAccount"])
    container = {"name": "c", "image": "i", "securityContext": {"privileged": True}}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    code, answer = await served.ask("POST", "/api/v1/namespaces/default/pods", pod)
    Capabilities.allow_privileged = True  # of the whole process
    assert code == 422
    assert answer["details"]["causes"] == [
        {
            "field": "spec.containers[0].securityContext.privileged",
            "message": "Forbidden: disallowed by cluster policy",
            "reason": "FieldValueForbidden",
        }
    ]


async def test_certificates_are_read_again(tmp_path: Path) -> None:
    from berg.machinery import pki

    ours, theirs = (pki.CertificateAuthority.create(n) for n in ("ours", "theirs"))
    ca = tmp_path / "ca.crt"
    ca.write_bytes(ours.certificate)
    cert, key = ours.issue("localhost", names=["localhost"], server=True).write(tmp_path, "server")
    signing = tmp_path / "sa.key"
    pki.write_private(signing, pki.key_pem(pki.new_rsa_key()))
    store = storage.open("memory:", compaction_interval_s=0)
    await store.start()
    flags = {"client_ca_file": str(ca), "tls_cert_file": str(cert), "tls_private_key_file": str(key)}
    config = Config(
        bind_address="127.0.0.1",
        secure_port=0,
        store=store,
        advertise_address="10.0.0.5",
        service_account_signing_key_file=str(signing),
        **flags,
    )
    server = APIServer(config)
    await server.start()
    served = Served(server, FakeClock())
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    assert (await served.get(path))["data"]["client-ca-file"] == ours.certificate.decode()
    ca.write_bytes(theirs.certificate)
    async with asyncio.timeout(10):
        while (await served.get(path))["data"]["client-ca-file"] != theirs.certificate.decode():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await server.stop()
    await store.close()
