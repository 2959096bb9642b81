"""Volumes behind claims: a PersistentVolumeClaim leads to its PersistentVolume, and that to a place on this node.

hostPath and local volumes are on this machine; NFS is mounted with the system's own mount program. What needs a
driver (CSI) says so.

Source: pkg/kubelet/volumemanager/populator, pkg/volume/local, pkg/volume/nfs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from berg.client.rest import Client
from berg.kubelet import admission
from berg.kubelet import pod as p
from berg.kubelet.mounts import MountedVolume
from berg.kubelet.volumes import local, mounter, ownership
from berg.kubelet.volumes.content import VolumeError
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

MOUNT_TIMEOUT_S = 120.0


class PersistentVolumes:
    """The plugin of `persistentVolumeClaim` and `ephemeral` volumes."""

    def __init__(self, client: Client, node: Callable[[], Obj | None]) -> None:
        self._client = client
        self._node = node

    async def setup(self, pod: Obj, volume: Obj, directory: Path) -> MountedVolume:
        claim = await self._claim(pod, volume)
        volume_object = await self._volume(pod, claim)
        spec = volume_object["spec"]
        if spec.get("volumeMode") == "Block":
            raise VolumeError("block volumes are not supported by this node")
        modes = claim["spec"].get("accessModes") or []
        read_only = bool((volume.get("persistentVolumeClaim") or {}).get("readOnly")) or modes == ["ReadOnlyMany"]
        if (source := spec.get("hostPath")) is not None:
            return MountedVolume(local.host_path(source), read_only)
        if (source := spec.get("local")) is not None:
            return bind_local(pod, source, directory, read_only=read_only)
        if (source := spec.get("nfs")) is not None:
            options = spec.get("mountOptions") or []
            return await mount_nfs(source, directory, options, read_only=read_only)
        kind = next((k for k in spec if k in ("csi", "iscsi", "fc")), "unknown")
        driver = (spec.get("csi") or {}).get("driver", "")
        raise VolumeError(
            f"driver name {driver} not found in the list of registered CSI drivers"
            if kind == "csi"
            else f"no volume plugin matched: {kind}"
        )

    async def teardown(self, uid: str, volume_name: str, directory: Path) -> None:
        mounter.unmount(directory)

    async def _claim(self, pod: Obj, volume: Obj) -> Obj:
        generic = volume.get("ephemeral") is not None
        name = f"{p.name(pod)}-{volume['name']}" if generic else volume["persistentVolumeClaim"]["claimName"]
        namespace = p.namespace(pod)
        try:
            claim = await self._client.get(resource("persistentvolumeclaims"), namespace, name)
        except ApiError as e:
            raise VolumeError(
                f"error processing PVC {namespace}/{name}: failed to fetch PVC from API server: {e.message}"
            ) from e
        if generic and not any(r.get("uid") == p.uid(pod) for r in claim["metadata"].get("ownerReferences") or ()):
            raise VolumeError(f"PVC {namespace}/{name} was not created for pod {p.full_name(pod)}")
        if claim["metadata"].get("deletionTimestamp"):
            raise VolumeError(f"error processing PVC {namespace}/{name}: PVC is being deleted")
        if (claim.get("status") or {}).get("phase") != "Bound" or not claim["spec"].get("volumeName"):
            raise VolumeError(f"error processing PVC {namespace}/{name}: PVC is not bound")
        return claim

    async def _volume(self, pod: Obj, claim: Obj) -> Obj:
        name = claim["spec"]["volumeName"]
        where = f"{p.namespace(pod)}/{claim['metadata']['name']}"
        try:
            found = await self._client.get(resource("persistentvolumes"), None, name)
        except ApiError as e:
            raise VolumeError(
                f"error processing PVC {where}: failed to fetch PV {name} from API server: {e.message}"
            ) from e
        if ((found["spec"].get("claimRef") or {}).get("uid")) != claim["metadata"]["uid"]:
            raise VolumeError(f"error processing PVC {where}: PV {name} spec.claimRef does not match the claim")
        node = self._node()
        required = (found["spec"].get("nodeAffinity") or {}).get("required")
        if node is not None and required is not None and not admission.matches_terms(required, node):
            raise VolumeError("node affinity doesn't match node")
        return found


def bind_local(pod: Obj, source: Obj, directory: Path, *, read_only: bool) -> MountedVolume:
    path = Path(source["path"])
    if not path.exists():
        raise VolumeError(f'path "{path}" does not exist')
    if not mounter.is_mount_point(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        mounter.bind(path, directory, read_only=read_only)
        group = ownership.group_of(pod)
        if group is not None and not read_only:
            ownership.apply(directory, group, policy=ownership.policy_of(pod))
    return MountedVolume(directory, read_only)


async def mount_nfs(source: Obj, directory: Path, options: list[str], *, read_only: bool) -> MountedVolume:
    read_only = read_only or bool(source.get("readOnly"))
    if mounter.is_mount_point(directory):
        return MountedVolume(directory, read_only)
    os.makedirs(directory, 0o750, exist_ok=True)
    server = source["server"]
    where = f"[{server}]" if ":" in server else server
    command = ["mount", "-t", "nfs", f"{where}:{source['path']}", str(directory)]
    flags = (["ro"] if read_only else []) + options
    if flags:
        command[3:3] = ["-o", ",".join(flags)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(MOUNT_TIMEOUT_S):
            output, _ = await process.communicate()
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        text = output.decode("utf-8", "replace")
        raise VolumeError(
            f"mount failed: exit status {process.returncode}\nMounting command: mount\n"
            f"Mounting arguments: {' '.join(command[1:])}\nOutput: {text}"
        )
    return MountedVolume(directory, read_only)


class NFSVolumes:
    """The plugin of `nfs` volumes named in a pod itself."""

    async def setup(self, pod: Obj, volume: Obj, directory: Path) -> MountedVolume:
        return await mount_nfs(volume["nfs"], directory, [], read_only=False)

    async def teardown(self, uid: str, volume_name: str, directory: Path) -> None:
        mounter.unmount(directory)
