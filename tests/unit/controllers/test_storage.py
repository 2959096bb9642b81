from typing import Any

from controllers_world import World

from berg.controllers.attachdetach import attachment_name

GB = "1Gi"


def volume(world: World, name: str, size: str = "5Gi", **spec: Any) -> dict[str, Any]:
    body = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "", **spec}
    return world.create("persistentvolumes", {"metadata": {"name": name}, "spec": body})


def claim(world: World, name: str = "c", size: str = GB, **spec: Any) -> dict[str, Any]:
    body = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "resources": {"requests": {"storage": size}},
        **spec,
    }
    return world.create("persistentvolumeclaims", {"metadata": {"name": name}, "spec": body})


def phases(world: World) -> dict[str, str]:
    objects = [*world.all("persistentvolumes"), *world.all("persistentvolumeclaims")]
    return {o["metadata"]["name"]: o.get("status", {}).get("phase", "") for o in objects}


async def test_the_smallest_that_fits_is_bound(world: World):
    volume(world, "big", "10Gi")
    volume(world, "fits", "2Gi")
    volume(world, "small", "500Mi")
    volume(world, "class", "1Gi", storageClassName="fast")
    claim(world)
    await world.run("persistentvolume-binder-controller")
    assert phases(world) == {
        "big": "Available",
        "fits": "Bound",
        "small": "Available",
        "class": "Available",
        "c": "Bound",
    }
    c = world.get("persistentvolumeclaims", "c")
    assert c["spec"]["volumeName"] == "fits"
    assert c["status"]["capacity"] == {"storage": "2Gi"}
    assert c["metadata"]["annotations"] == {
        "pv.kubernetes.io/bind-completed": "yes",
        "pv.kubernetes.io/bound-by-controller": "yes",
    }
    ref = world.get("persistentvolumes", "fits", None)["spec"]["claimRef"]
    assert (ref["name"], ref["uid"]) == ("c", c["metadata"]["uid"])


async def test_two_claims_never_share_a_volume(world: World):
    volume(world, "one")
    claim(world, "a")
    claim(world, "b")
    await world.run("persistentvolume-binder-controller")
    assert sorted(phases(world).items()) == [("a", "Bound"), ("b", "Pending"), ("one", "Bound")]
    assert (
        world.events("FailedBinding")[0] == "no persistent volumes available for this claim and no storage class is set"
    )
    volume(world, "two")
    await world.settle()
    assert phases(world)["b"] == "Bound"


async def test_a_volume_whose_claim_is_gone_is_released_and_kept(world: World):
    volume(world, "v", persistentVolumeReclaimPolicy="Retain")
    claim(world)
    await world.run("persistentvolume-binder-controller")
    world.delete("persistentvolumeclaims", "c")
    await world.settle()
    assert phases(world) == {"v": "Released"}
    claim(world)
    await world.settle()
    assert phases(world) == {"v": "Released", "c": "Pending"}


async def test_a_claim_that_lost_its_volume_says_so(world: World):
    volume(world, "v")
    claim(world)
    await world.run("persistentvolume-binder-controller")
    world.delete("persistentvolumes", "v", None)
    await world.settle()
    assert phases(world) == {"c": "Lost"}


async def test_provisioning_is_asked_for(world: World):
    world.create("storageclasses.storage.k8s.io", {"metadata": {"name": "fast"}, "provisioner": "csi.example.com"})
    claim(world, storageClassName="fast")
    await world.run("persistentvolume-binder-controller")
    c = world.get("persistentvolumeclaims", "c")
    assert c["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] == "csi.example.com"
    assert world.events("ExternalProvisioning")[0].startswith(
        "Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually"
    )


async def test_binding_may_wait_for_the_first_consumer(world: World):
    mode = "WaitForFirstConsumer"
    body = {"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": mode}
    world.create("storageclasses.storage.k8s.io", body)
    volume(world, "v", storageClassName="local")
    c = claim(world, storageClassName="local")
    await world.run("persistentvolume-binder-controller")
    assert phases(world) == {"v": "Available", "c": "Pending"}
    assert world.events("WaitForFirstConsumer") == ["waiting for first consumer to be created before binding"]
    # The scheduler chooses: it reserves the volume by claimRef.
    ref = {"name": "c", "namespace": "default", "uid": c["metadata"]["uid"], "kind": "PersistentVolumeClaim"}
    world.change("persistentvolumes", "v", {"spec": {"claimRef": ref}}, None)
    await world.settle()
    assert phases(world) == {"v": "Bound", "c": "Bound"}


async def test_claims_in_use_are_held(world: World):
    claim(world)
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "volumes": volumes}})
    await world.run("persistentvolumeclaim-protection-controller")
    assert world.get("persistentvolumeclaims", "c")["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    await world.client.request("DELETE", "/api/v1/namespaces/default/persistentvolumeclaims/c", body={})
    await world.settle()
    assert world.all("persistentvolumeclaims")
    world.delete("pods", "p")
    await world.settle()
    assert not world.all("persistentvolumeclaims")


async def test_ephemeral_volumes_get_a_claim_of_the_pods(world: World):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"volumes": volumes}})
    await world.run("ephemeral-volume-controller")
    c = world.get("persistentvolumeclaims", "p-scratch")
    assert c["metadata"]["ownerReferences"][0]["kind"] == "Pod"
    assert c["metadata"]["labels"] == {"a": "b"}


async def test_a_csi_volume_is_attached_and_detached(world: World):
    world.create("nodes", {"metadata": {"name": "n"}, "spec": {}, "status": {}})
    csi = {"driver": "d", "volumeHandle": "h"}
    volume(world, "v", csi=csi)
    claim(world, volumeName="v")
    world.change("persistentvolumeclaims", "c", {"status": {"phase": "Bound"}})
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "volumes": volumes}})
    await world.run("persistentvolume-attach-detach-controller")
    (va,) = world.all("volumeattachments.storage.k8s.io")
    name = attachment_name("h", "d", "n")
    assert va["metadata"]["name"] == name
    assert va["spec"] == {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
    world.change("volumeattachments.storage.k8s.io", name, {"status": {"attached": True}}, None)
    await world.settle()
    attached = world.get("nodes", "n", None)["status"]["volumesAttached"]
    assert attached == [{"name": "kubernetes.io/csi/d^h", "devicePath": ""}]
    assert world.events("SuccessfulAttachVolume") == ['AttachVolume.Attach succeeded for volume "v" ']
    world.change("nodes", "n", {"status": {"volumesInUse": ["kubernetes.io/csi/d^h"]}}, None)
    world.delete("pods", "p")
    await world.settle()
    assert world.all("volumeattachments.storage.k8s.io"), "it is still mounted"
    world.change("nodes", "n", {"status": {"volumesInUse": None}}, None)
    await world.settle()
    assert not world.all("volumeattachments.storage.k8s.io")
    assert "volumesAttached" not in world.get("nodes", "n", None)["status"]
