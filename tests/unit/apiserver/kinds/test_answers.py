"""What upstream's server (v1.36.2) answered to changes of an object that is created, updated, or has its status
written, recorded in `tests/data/kinds/answers.json`; all of them dry runs. Changes as in `test_refused.py`; what a
cause says is compared to its first line, the code always.
"""

import copy
import json
from pathlib import Path

import pytest

from berg import storage
from berg.apiserver.config import Config
from berg.apiserver.server import APIServer
from berg.machinery.clock import FakeClock
from tests.unit.apiserver.served_api import Served

from .test_refused import changed

DATA = Path(__file__).parents[3] / "data" / "kinds" / "answers.json"
ENTRIES = json.loads(DATA.read_text())
ADMIN_ACCESS = {"resource.kubernetes.io/admin-access": "true"}


@pytest.fixture
async def served():
    clock = FakeClock()
    store = storage.open("memory:", clock=clock, compaction_interval_s=0)
    await store.start()
    every = {"api/all": "true"}
    server = APIServer(Config(secure_port=-1, store=store, clock=clock, runtime_config=every))
    await server.start()
    yield Served(server, clock)
    await server.stop()
    await store.close()


def told(answer):
    causes = (answer.get("details") or {}).get("causes") or ()
    return [f"{c.get('field', '')}: {c['message']}".split("\n")[0] for c in causes] or [answer.get("message")]


KINDS = sorted({e["path"].rpartition("/")[2] for e in ENTRIES})


@pytest.mark.parametrize("plural", KINDS)
async def test_as_upstream_answered(served, plural):
    wrong = []

    async def compare(method, where, obj, code, wanted):
        got, answer = await served.ask(method, f"{where}?dryRun=All", obj)
        if (got, told(answer)) != (code, wanted):
            wrong.append((method, where, code, wanted, got, told(answer)))

    for entry in ENTRIES:
        path, base = entry["path"], entry["object"]
        if path.rpartition("/")[2] != plural:
            continue
        if namespace := base["metadata"].get("namespace"):
            labels = ADMIN_ACCESS if namespace.endswith("admin") else {}
            await served.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
        for change, code, wanted in entry.get("create", ()):
            await compare("POST", path, changed(base, change), code, wanted)
        if "update" not in entry and "status" not in entry:
            continue
        stored = await served.create(path, base)
        base = copy.deepcopy(base)
        base["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
        name = f"{path}/{base['metadata']['name']}"
        for change, code, wanted in entry.get("update", ()):
            await compare("PUT", name, changed(base, change), code, wanted)
        for change, code, wanted in entry.get("status", ()):
            await compare("PUT", f"{name}/status", {**base, "status": changed(entry["says"], change)}, code, wanted)
        await served.ask("DELETE", name)
    assert not wrong
