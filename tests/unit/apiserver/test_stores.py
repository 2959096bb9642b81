"""Resources in stores of their own, and what health says of each store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from berg.apiserver.config import Config
from berg.apiserver.health import Health
from berg.apiserver.server import APIServer
from berg.apiserver.stores import Stores
from berg.machinery.clock import FakeClock
from berg.storage.interface import RangeRequest
from tests.unit.apiserver.served_api import Served

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"


async def started(folder: Path) -> Served:
    clock = FakeClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    other = folder / "other.db"
    overrides = [f"/configmaps#{other}", f"apps/deployments#{other}", "/events#memory:"]
    config = Config(secure_port=-1, data_dir=str(folder), etcd_servers_overrides=overrides, clock=clock)
    config.advertise_address = "10.0.0.5"
    server = APIServer(config)
    await server.start()
    return Served(server, clock)


async def keys(store: Any, prefix: bytes) -> list[bytes]:
    answer = await store.range(RangeRequest(b"/registry/" + prefix, b"/registry/" + prefix + b"\xff"))
    return [kv.key for kv in answer.kvs if b"/default/" in kv.key]


async def test_a_resource_may_have_a_store_of_its_own(tmp_path: Path) -> None:
    served = await started(tmp_path)
    stores = served.server.stores
    assert len(stores.others) == 2  # the same servers are one store
    for path in (CONFIGMAPS, SECRETS):
        status, made = await served.ask("POST", path, {"metadata": {"name": "a"}})
        assert status == 201, made
    main, other = stores.main, stores.others[0]
    assert await keys(other, b"configmaps") == [b"/registry/configmaps/default/a"]
    assert await keys(main, b"configmaps") == await keys(other, b"secrets") == []
    assert await keys(main, b"secrets") == [b"/registry/secrets/default/a"]
    status, changed = await served.ask(
        "PATCH", f"{CONFIGMAPS}/a", {"data": {"k": "v"}}, content_type="application/merge-patch+json"
    )
    assert status == 200 and int(changed["metadata"]["resourceVersion"]) == other.revision
    listed = await served.get(f"{CONFIGMAPS}?resourceVersion={other.revision}")
    assert [o["data"] for o in listed["items"]] == [{"k": "v"}]
    told = (await served.raw("GET", "/readyz?verbose")).body.decode()
    for check in ("etcd", "etcd-readiness", "etcd-override-0", "etcd-override-1", "etcd-override-readiness-1"):
        assert f"[+]{check} ok\n" in told
    await served.server.stop()

    served = await started(tmp_path)
    assert (await served.get(f"{CONFIGMAPS}/a"))["data"] == {"k": "v"}
    await served.server.stop()


@pytest.mark.parametrize("text", ["pods#memory:", "/pods", "/pods#", "/pods#a;;b", "a/b/c#memory:", "/pods#a#b"])
async def test_what_is_no_override_is_refused(text: str) -> None:
    stores = Stores(Config(etcd_servers=["memory:"], etcd_servers_overrides=[text]))
    with pytest.raises(ValueError, match="--etcd-servers-overrides invalid, must be of format: group/resource#servers"):
        await stores.open()
    await stores.close()


class Slow:
    """Takes a second to say how it is."""

    def fault_within(self, timeout_s: float) -> str | None:
        return "context deadline exceeded" if timeout_s < 1 else None


@pytest.mark.parametrize(("health_s", "ready_s", "failing"), [(2, 0.5, ["etcd-readiness"]), (0.5, 2, ["etcd"])])
def test_readiness_has_a_timeout_of_its_own(health_s: float, ready_s: float, failing: list[str]) -> None:
    config = Config(store=Slow(), etcd_healthcheck_timeout_s=health_s, etcd_readycheck_timeout_s=ready_s)
    health = Health()
    Stores(config).checked(health)
    assert health.failing("/readyz") == failing
    assert health.failing("/livez") == [name for name in failing if name == "etcd"]
