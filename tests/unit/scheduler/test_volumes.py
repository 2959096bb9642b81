"""Volumes: binding, zones, limits, restrictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from berg.scheduler.framework.diagnosis import FitError
from berg.scheduler.framework.interface import Cycle
from berg.scheduler.plugins.volume_binding import VolumeBinding

from .objects import Core, node, pod

Obj = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"


def storage_class(
    core: Core, name: str, provisioner: str = "csi.example.com", mode: str = "Immediate", **more: Any
) -> None:
    core.objects.set(
        "StorageClass", {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, **more}
    )


def claim(
    core: Core, name: str, volume: str = "", cls: str = "std", modes: tuple[str, ...] = ("ReadWriteOnce",), **meta: Any
) -> Obj:
    obj = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", **meta},
        "spec": {
            "storageClassName": cls,
            "accessModes": list(modes),
            "resources": {"requests": {"storage": "10Gi"}},
            **({"volumeName": volume} if volume else {}),
        },
        "status": {"phase": "Bound" if volume else "Pending"},
    }
    core.objects.set("PersistentVolumeClaim", obj)
    return obj


def volume(
    core: Core, name: str, on: str = "", cls: str = "std", size: str = "10Gi", labels: Obj | None = None, **spec: Any
) -> None:
    if on:
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    core.objects.set(
        "PersistentVolume",
        {
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"],
                "storageClassName": cls,
                **spec,
            },
            "status": {"phase": "Available"},
        },
    )


def using(name: str, *claims: str, **spec: Any) -> Obj:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    return pod(name, volumes=volumes, **spec)


def why(core: Core, obj: Obj) -> str:
    with pytest.raises(FitError) as e:
        core.decide(obj)
    return str(e.value)


def test_follows_a_bound_volume() -> None:
    core = Core(node("a"), node("b"))
    volume(core, "v", on="b")
    claim(core, "c", volume="v")
    assert core.decide(using("p", "c")).node == "b"
    core.snapshot.delete_node("b")
    assert why(core, using("p", "c")) == (
        "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."
    )


def test_what_cannot_be_used_is_said() -> None:
    core = Core(node("a"))
    storage_class(core, "std")
    assert why(core, using("p", "c")) == '0/1 nodes are available: persistentvolumeclaim "c" not found.'
    claim(core, "c")
    assert why(core, using("p", "c")) == "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    claim(core, "c", volume="gone")
    assert "bound to non-existent pv(s)" in why(core, using("p", "c"))
    claim(core, "c", deletionTimestamp="2026-01-01T00:00:00Z")
    assert 'persistentvolumeclaim "c" is being deleted' in why(core, using("p", "c"))


def test_waiting_claims_find_the_smallest_volume_that_suits() -> None:
    core = Core(node("a"), node("b"))
    storage_class(core, "std", provisioner="kubernetes.io/no-provisioner", mode="WaitForFirstConsumer")
    volume(core, "large", on="b", size="100Gi")
    volume(core, "small", on="b", size="5Gi")
    volume(core, "right", on="b", size="10Gi")
    claim(core, "c")
    decision = core.decide(using("p", "c"))
    assert decision.node == "b"
    plugin = next(p for p in core.profile.reserve if isinstance(p, VolumeBinding))
    assert plugin.reserve(decision.cycle, "b") is None
    chosen = decision.cycle.data["VolumeBinding"].static
    assert [v["metadata"]["name"] for _, v in chosen] == ["right"]
    claim(core, "d")
    other = core.decide(using("q", "d"))
    plugin.reserve(other.cycle, "b")
    assert [v["metadata"]["name"] for _, v in other.cycle.data["VolumeBinding"].static] == ["large"]
    claim(core, "e")
    assert "didn't find available persistent volumes to bind" in why(core, using("r", "e"))
    plugin.unreserve(other.cycle, "b")
    assert core.decide(using("r", "e")).node == "b"


def test_waiting_claims_may_be_provisioned_where_the_class_allows() -> None:
    core = Core(node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"}))
    allowed = [{"matchLabelExpressions": [{"key": ZONE, "values": ["y"]}]}]
    storage_class(core, "std", mode="WaitForFirstConsumer", allowedTopologies=allowed)
    claim(core, "c")
    assert core.decide(using("p", "c")).node == "b"


def test_drivers_that_tell_their_capacity() -> None:
    core = Core(node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"}))
    storage_class(core, "std", mode="WaitForFirstConsumer")
    core.objects.set("CSIDriver", {"metadata": {"name": "csi.example.com"}, "spec": {"storageCapacity": True}})
    for zone, size in (("x", "1Gi"), ("y", "1Ti")):
        core.objects.set(
            "CSIStorageCapacity",
            {
                "metadata": {"name": zone, "namespace": "default"},
                "storageClassName": "std",
                "nodeTopology": {"matchLabels": {ZONE: zone}},
                "capacity": size,
            },
        )
    claim(core, "c")
    assert core.decide(using("p", "c")).node == "b"
    assert why(core, using("p", "c", nodeSelector={ZONE: "x"})) == (
        "0/2 nodes are available: 1 node(s) did not have enough free storage, "
        "1 node(s) didn't match Pod's node affinity/selector."
    )


def test_zones_of_bound_volumes() -> None:
    core = Core(node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"}), node("nowhere"))
    volume(core, "v", labels={ZONE: "x__z"})
    claim(core, "c", volume="v")
    assert "node(s) had no available volume zone" in why(core, using("p", "c", nodeSelector={ZONE: "y"}))
    assert core.decide(using("p", "c", nodeSelector={ZONE: "x"})).node == "a"


def test_limits_count_what_is_attached() -> None:
    core = Core(node("a"))
    drivers = [{"name": "csi.example.com", "nodeID": "a", "allocatable": {"count": 1}}]
    core.objects.set("CSINode", {"metadata": {"name": "a"}, "spec": {"drivers": drivers}})
    for name in ("v", "w"):
        volume(core, name, csi={"driver": "csi.example.com", "volumeHandle": name})
        claim(core, f"c-{name}", volume=name)
    assert core.decide(using("p", "c-v")).node == "a"
    core.place(using("p", "c-v"), "a")
    assert core.decide(using("q", "c-v")).node == "a", "the same volume is attached once"
    assert why(core, using("q", "c-w")) == "0/1 nodes are available: 1 node(s) exceed max volume count."


def test_a_claim_for_one_pod_only() -> None:
    core = Core(node("a"), node("b"))
    volume(core, "v")
    claim(core, "c", volume="v", modes=("ReadWriteOncePod",))
    core.place(using("p", "c"), "a")
    assert "ReadWriteOncePod access mode already in-use by another pod" in why(core, using("q", "c"))


def test_disks_that_exclude_each_other() -> None:
    core = Core(node("a"))
    disk = [{"name": "d", "gcePersistentDisk": {"pdName": "d"}}]
    core.place(pod("p", volumes=disk), "a")
    assert why(core, pod("q", volumes=disk)) == "0/1 nodes are available: 1 node(s) had no available disk."
    read_only = [{"name": "d", "gcePersistentDisk": {"pdName": "d", "readOnly": True}}]
    core.place(pod("r", volumes=read_only, namespace="x"), "a")
    assert "no available disk" in why(core, pod("s", volumes=read_only))


class Client:
    """Records what PreBind writes, and has it come true."""

    def __init__(self, core: Core) -> None:
        self.core, self.patches = core, list[tuple[str, str, Obj]]()

    async def patch(self, r: Any, namespace: str | None, name: str, patch: Obj) -> Obj:
        self.patches.append((r.plural, name, patch))
        if r.plural == "persistentvolumeclaims":
            claim(self.core, name, volume="made")
        return {}


async def test_pre_bind_asks_for_a_volume_at_the_chosen_node() -> None:
    core = Core(node("a"))
    storage_class(core, "std", mode="WaitForFirstConsumer")
    claim(core, "c")
    client = Client(core)
    core.client = client  # type: ignore[assignment]
    cycle: Cycle = core.decide(using("p", "c")).cycle
    plugin = next(p for p in core.profile.reserve if isinstance(p, VolumeBinding))
    plugin.reserve(cycle, "a")
    assert plugin.pre_bind_needed(cycle)
    assert await plugin.pre_bind(cycle, "a") is None
    annotations = {"volume.kubernetes.io/selected-node": "a"}
    assert client.patches == [("persistentvolumeclaims", "c", {"metadata": {"annotations": annotations}})]


def test_rows_subset_agrees_with_all_rows() -> None:
    """The same filter asked about some rows and about all gives the same answers."""
    core = Core(*(node(f"n{i}", cpu=str(i)) for i in range(6)))
    volume(core, "v", on="n3")
    claim(core, "c", volume="v")
    cycle = Cycle(
        core.parser.parse(using("p", "c", cpu="2", nodeSelector={"kubernetes.io/hostname": "n3"})), core.snapshot
    )
    for plugin in core.profile.pre_filter:
        plugin.pre_filter(cycle)
    rows = np.array([1, 3, 5], dtype=np.intp)
    for f in core.profile.filters:
        everything, some = f.filter(cycle, slice(None)), f.filter(cycle, rows)
        if everything is not None and some is not None:
            assert (everything[rows] == some).all(), f.name
