from typing import Any

import orjson
from fake_api import Answer

from berg.client.discovery import discover
from berg.client.rest import Client

AGGREGATED = {
    "/api": {
        "kind": "APIGroupDiscoveryList",
        "items": [
            {
                "metadata": {},
                "versions": [
                    {
                        "version": "v1",
                        "resources": [
                            {
                                "resource": "pods",
                                "responseKind": {"group": "", "version": "v1", "kind": "Pod"},
                                "scope": "Namespaced",
                                "verbs": ["get", "list"],
                                "shortNames": ["po"],
                                "subresources": [
                                    {
                                        "subresource": "eviction",
                                        "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"},
                                        "verbs": ["create"],
                                    }
                                ],
                            }
                        ],
                    }
                ],
            }
        ],
    },
    "/apis": {
        "kind": "APIGroupDiscoveryList",
        "items": [
            {"metadata": {"name": "x.io"}, "versions": [{"version": "v2", "freshness": "Stale", "resources": []}]}
        ],
    },
}
LEGACY = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": "apps",
                "versions": [{"version": "v1beta1"}, {"version": "v1"}],
                "preferredVersion": {"version": "v1"},
            }
        ],
    },
    "/api/v1": {"resources": [{"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["get"]}]},
    "/apis/apps/v1": {
        "resources": [
            {"name": "deployments", "kind": "Deployment", "namespaced": True, "verbs": ["get"]},
            {"name": "deployments/scale", "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]},
        ]
    },
}


class Server:
    def __init__(self, documents: dict[str, Any]) -> None:
        self.documents = documents

    async def request(self, method: str, path: str, **kw: Any) -> Answer:
        found = self.documents.get(path)
        return Answer(200 if found else 503, orjson.dumps(found or {}))

    async def close(self) -> None: ...


async def test_aggregated():
    found = await discover(Client(Server(AGGREGATED)))
    (pods,) = found.resources
    assert (pods.plural, pods.kind, pods.namespaced, pods.short_names) == ("pods", "Pod", True, ("po",))
    assert pods.subresources["eviction"].kind == "Eviction"
    assert found.failed == {"x.io/v2"}, "a server that did not answer is not one that has nothing"


async def test_per_group_documents_and_one_that_fails():
    found = await discover(Client(Server(LEGACY)))
    assert [(r.group, r.version, r.plural) for r in found.resources] == [
        ("", "v1", "pods"),
        ("apps", "v1", "deployments"),
    ]
    assert found.resources[1].subresources["scale"].group == "autoscaling"
    assert found.failed == {"apps/v1beta1"}
    assert found.by_kind("apps/v1", "Deployment") is found.resources[1]
