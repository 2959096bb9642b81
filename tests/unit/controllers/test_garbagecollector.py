from typing import Any

import pytest
from controllers_world import World


def discovery(*resources: tuple[str, str, str, bool]) -> list[dict[str, Any]]:
    """(group, plural, kind, namespaced)"""
    groups: dict[str, dict[str, Any]] = {}
    for group, plural, kind, namespaced in resources:
        g = groups.setdefault(group, {"metadata": {"name": group}, "versions": [{"version": "v1", "resources": []}]})
        g["versions"][0]["resources"].append(
            {
                "resource": plural,
                "responseKind": {"group": group, "version": "v1", "kind": kind},
                "scope": "Namespaced" if namespaced else "Cluster",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            }
        )
    return list(groups.values())


DISCOVERY = discovery(
    ("", "pods", "Pod", True),
    ("", "configmaps", "ConfigMap", True),
    ("", "namespaces", "Namespace", False),
    ("", "nodes", "Node", False),
    ("apps", "replicasets", "ReplicaSet", True),
    ("example.com", "widgets", "Widget", True),
)


@pytest.fixture
async def gc(world: World):
    world.api.discovery = DISCOVERY
    return world


def owner(obj: dict[str, Any], *, block: bool = False) -> dict[str, Any]:
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "blockOwnerDeletion": block,
    }


def config_map(world: World, name: str, *owners: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return world.create("configmaps", {"metadata": {"name": name, "ownerReferences": list(owners), **meta}})


def names(world: World) -> list[str]:
    return sorted(c["metadata"]["name"] for c in world.all("configmaps"))


async def settle(world: World) -> None:
    for _ in range(6):
        await world.settle()


async def test_dependents_follow_their_owner(gc: World):
    a = config_map(gc, "a")
    b = config_map(gc, "b", owner(a))
    config_map(gc, "c", owner(b))
    config_map(gc, "free")
    await gc.run("garbage-collector-controller")
    await settle(gc)
    assert names(gc) == ["a", "b", "c", "free"]
    await gc.client.request("DELETE", "/api/v1/namespaces/default/configmaps/a", body={})
    await settle(gc)
    assert names(gc) == ["free"]


async def test_an_owner_that_never_was_is_absent(gc: World):
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "nobody"}
    config_map(gc, "orphaned", ghost)
    other = config_map(gc, "other")
    config_map(gc, "kept", ghost, owner(other))
    config_map(gc, "impostor", {**owner(other), "uid": "someone-else"})
    await gc.run("garbage-collector-controller")
    await settle(gc)
    assert names(gc) == ["kept", "other"]
    refs = gc.get("configmaps", "kept")["metadata"]["ownerReferences"]
    assert [r["name"] for r in refs] == ["other"]


async def test_an_owner_in_another_namespace_is_no_owner(gc: World):
    far = gc.create("configmaps", {"metadata": {"name": "far", "namespace": "elsewhere"}})
    config_map(gc, "near", owner(far))
    await gc.run("garbage-collector-controller")
    await settle(gc)
    assert names(gc) == ["far"]


async def test_a_cluster_scoped_owner_may_own_anywhere(gc: World):
    node = gc.create("nodes", {"metadata": {"name": "n"}, "spec": {}})
    config_map(gc, "a", owner(node))
    await gc.run("garbage-collector-controller")
    await settle(gc)
    assert names(gc) == ["a"]


async def test_foreground_waits_for_what_blocks(gc: World):
    a = config_map(gc, "a")
    config_map(gc, "b", owner(a, block=True), finalizers=["example.com/hold"])
    await gc.run("garbage-collector-controller")
    await gc.client.request(
        "DELETE", "/api/v1/namespaces/default/configmaps/a", body={"propagationPolicy": "Foreground"}
    )
    await settle(gc)
    assert gc.get("configmaps", "a")["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert gc.get("configmaps", "b")["metadata"]["deletionTimestamp"]
    b = gc.get("configmaps", "b")
    await gc.client.request(
        "PATCH",
        "/api/v1/namespaces/default/configmaps/b",
        body={"metadata": {"finalizers": []}},
        content_type="application/merge-patch+json",
    )
    assert b
    await settle(gc)
    assert names(gc) == []


async def test_orphans_are_released(gc: World):
    a = config_map(gc, "a")
    config_map(gc, "b", owner(a))
    await gc.run("garbage-collector-controller")
    await gc.client.request("DELETE", "/api/v1/namespaces/default/configmaps/a", body={"propagationPolicy": "Orphan"})
    await settle(gc)
    assert names(gc) == ["b"]
    assert gc.get("configmaps", "b")["metadata"]["ownerReferences"] == []


async def test_custom_resources_too(gc: World):
    widget = gc.api.put(
        "example.com",
        "widgets",
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}},
    )
    config_map(gc, "a", owner(widget))
    await gc.run("garbage-collector-controller")
    await settle(gc)
    assert names(gc) == ["a"]
    gc.api.drop("widgets", "default/w", "example.com")
    await settle(gc)
    assert names(gc) == []


async def test_two_owners_both_must_go(gc: World):
    a, b = config_map(gc, "a"), config_map(gc, "b")
    config_map(gc, "c", owner(a), owner(b))
    await gc.run("garbage-collector-controller")
    gc.delete("configmaps", "a")
    await settle(gc)
    assert [r["name"] for r in gc.get("configmaps", "c")["metadata"]["ownerReferences"]] == ["b"]
    gc.delete("configmaps", "b")
    await settle(gc)
    assert names(gc) == []


async def test_a_cycle_can_be_deleted_in_the_foreground(gc: World):
    a = config_map(gc, "a")
    b = config_map(gc, "b", owner(a, block=True))
    gc.change("configmaps", "a", {"metadata": {"ownerReferences": [owner(b, block=True)]}})
    await gc.run("garbage-collector-controller")
    await gc.client.request(
        "DELETE", "/api/v1/namespaces/default/configmaps/a", body={"propagationPolicy": "Foreground"}
    )
    await settle(gc)
    assert names(gc) == []


async def test_a_namespace_is_emptied_and_then_goes(gc: World):
    gc.create(
        "namespaces", {"metadata": {"name": "t"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    )
    gc.create("configmaps", {"metadata": {"name": "a", "namespace": "t"}})
    gc.create("configmaps", {"metadata": {"name": "held", "namespace": "t", "finalizers": ["example.com/x"]}})
    gc.api.put(
        "example.com",
        "widgets",
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "t"}},
    )
    await gc.run("namespace-controller")
    await gc.client.request("DELETE", "/api/v1/namespaces/t", body={})
    await settle(gc)
    assert gc.all("widgets.example.com") == []
    ns = gc.get("namespaces", "t", None)
    conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in ns["status"]["conditions"]}
    assert conditions["NamespaceContentRemaining"] == (
        "True",
        "SomeResourcesRemain",
        "Some resources are remaining: configmaps. has 1 resource instances",
    )
    assert conditions["NamespaceFinalizersRemaining"] == (
        "True",
        "SomeFinalizersRemain",
        "Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances",
    )
    assert conditions["NamespaceDeletionDiscoveryFailure"][:2] == ("False", "ResourcesDiscovered")
    await gc.client.request(
        "PATCH",
        "/api/v1/namespaces/t/configmaps/held",
        body={"metadata": {"finalizers": []}},
        content_type="application/merge-patch+json",
    )
    await gc.clock.advance(10)
    await settle(gc)
    assert gc.api.one("namespaces", "t") is None
