"""What upstream's server (v1.36.2) answered to requests about custom resources, recorded in
`tests/data/crd/answers.json`: a story is a list of `[method, path, body, content type, code, answer, warnings]`, the
last three left out where only the doing matters. An answer is the causes in any order (upstream goes through its
maps as they come), each to its first line; the names in a list; or spec and status of an object.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest

STORIES = json.loads((Path(__file__).parents[2] / "data" / "crd" / "answers.json").read_text())
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def told(code, answer):
    if code >= 400:
        causes = (answer.get("details") or {}).get("causes") or ()
        return sorted(f"{c.get('field', '')}: {c['message']}".split("\n")[0] for c in causes) or [answer["message"]]
    if answer["kind"].endswith("List"):
        return sorted(o["metadata"]["name"] for o in answer["items"])
    return {} if answer["kind"] == "Status" else {k: answer[k] for k in ("spec", "status") if k in answer}


async def defined(served, method, path, crd):
    """Returns when the definition is what is served."""
    if method == "PUT":
        crd["metadata"]["resourceVersion"] = (await served.get(path))["metadata"]["resourceVersion"]
    code, made = await served.ask(method, path, crd)
    assert code < 300, made
    served_now = served.server.custom_resources.installed
    async with asyncio.timeout(30):
        while (served_now.get(crd["metadata"]["name"]) or {}).get("spec") != made["spec"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        while not any(c["type"] == "Established" for c in await conditions(served, crd)):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def conditions(served, crd):
    return (await served.get(f"{DEFINITIONS}/{crd['metadata']['name']}"))["status"]["conditions"] or ()


@pytest.mark.parametrize("name", STORIES)
async def test_as_upstream_answered(served, name):
    await served.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "kinds"}})
    wrong = []
    for method, path, body, content_type, *expected in STORIES[name]:
        if path.startswith(DEFINITIONS) and "dryRun" not in path:
            await defined(served, method, path, body)
            continue
        response = await served.raw(method, path, body, content_type=content_type or "application/json")
        if not expected:
            assert response.status < 300, (path, response.body)
            continue
        code, answer, warnings = expected
        if isinstance(answer, list):
            answer = sorted(answer)
        got = (response.status, told(response.status, json.loads(response.body)))
        if got != (code, answer):
            wrong.append((method, path, body, (code, answer), got))
        header = response.headers.get("Warning", "").encode("latin-1").decode()
        said = [w.replace('\\"', '"') for w in re.findall(r'299 - "((?:[^"\\]|\\.)*)"', header)]
        if sorted(said) != sorted(warnings):
            wrong.append((method, path, body, warnings, said))
    assert not wrong
