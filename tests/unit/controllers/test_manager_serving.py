import asyncio
import ssl
from pathlib import Path
from typing import Any

from controllers_world import World

from berg.client.serving import _AUTHENTICATION, Serving
from berg.client.transport import HTTPTransport
from berg.machinery import pki
from berg.machinery.metrics import Registry


async def test_health_is_for_all_and_metrics_for_who_may(world: World):
    registry = Registry()
    registry.counter("c", "help").inc()
    wrong: list[str] = []
    asked: list[Any] = []

    def api(method: str, path: str, doc: Any) -> None:
        if path.endswith("tokenreviews"):
            good = doc["spec"]["token"] in ("monitor", "other")
            doc["status"] = {"authenticated": good, "user": {"username": doc["spec"]["token"], "groups": ["g"]}}
        if path.endswith("subjectaccessreviews"):
            asked.append(doc["spec"])
            doc["status"] = {"allowed": doc["spec"]["user"] == "monitor"}

    world.api.answer_hook = api
    serving = Serving(
        world.client,
        "kube-controller-manager",
        lambda: registry.text().encode(),
        address="127.0.0.1",
        fault=lambda: wrong[0] if wrong else None,
    )
    await serving.start()
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    http = HTTPTransport(f"https://127.0.0.1:{serving.port}", tls=tls)

    async def get(path: str, token: str = "") -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await http.request("GET", path, headers=headers)
        return answer.status, await answer.read()

    try:
        assert await get("/healthz") == (200, b"ok")
        wrong.append("lease not renewed")
        assert await get("/readyz") == (500, b"lease not renewed")
        assert (await get("/metrics"))[0] == 401
        assert (await get("/metrics", "forged"))[0] == 401
        assert (await get("/metrics", "other"))[0] == 403
        status, text = await get("/metrics", "monitor")
        assert (status, b"c 1\n" in text) == (200, True)
        before = len(asked)
        await get("/metrics", "monitor")
        assert len(asked) == before, "what was decided is remembered for a moment"
        assert asked[-1]["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
        assert (await get("/none", "monitor"))[0] == 404
    finally:
        await http.close()
        await serving.stop()
        await asyncio.sleep(0)


async def test_a_client_certificate_of_the_cluster_names_who_asks(world: World, tmp_path: Path) -> None:
    authority = pki.CertificateAuthority.create("cluster")
    data = {"client-ca-file": authority.pair.certificate.decode()}
    world.create("configmaps", {"metadata": {"name": _AUTHENTICATION, "namespace": "kube-system"}, "data": data})
    asked: list[Any] = []

    def api(method: str, path: str, doc: Any) -> None:
        if path.endswith("subjectaccessreviews"):
            asked.append(doc["spec"])
            doc["status"] = {"allowed": "monitors" in doc["spec"]["groups"]}

    world.api.answer_hook = api
    serving = Serving(world.client, "kube-scheduler", lambda: b"m 1\n", address="127.0.0.1")
    await serving.start()
    try:
        assert serving._trusting is not None
        await serving._trusting
        for organization, code in (("monitors", 200), ("others", 403)):
            client = authority.issue("me", [organization], client=True)
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            tls.load_cert_chain(*client.write(tmp_path, organization))
            http = HTTPTransport(f"https://127.0.0.1:{serving.port}", tls=tls)
            try:
                assert (await http.request("GET", "/metrics")).status == code
            finally:
                await http.close()
        assert asked[0]["user"] == "me"
        assert asked[0]["groups"] == ["monitors", "system:authenticated"]
    finally:
        await serving.stop()
        await asyncio.sleep(0)
