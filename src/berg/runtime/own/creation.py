"""From a CreateContainer request to a container on disk: image, user, namespaces, spec.

Everything that can be refused is refused here, before anything runs.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import orjson

from berg.runtime.cri import Code, CRIError
from berg.runtime.own import cgroups
from berg.runtime.own.bundle import Bundle, OCIRuntime, join_hook
from berg.runtime.own.messages import signal_name
from berg.runtime.own.rootfs import ImageMount, Rootfs
from berg.runtime.own.sandboxes import CONTAINER, NODE, POD, TARGET, Sandboxes
from berg.runtime.own.spec import Given, build
from berg.runtime.own.spec import Image as ImageConfig
from berg.runtime.own.state import Container, ContainerState, Records, Sandbox, new_id
from berg.runtime.own.users import UnknownUser, resolve

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb
    from berg.runtime.own.images.store import Image, ImageStore


class Creator:
    def __init__(self, sandboxes: Sandboxes, containers: Records[Container], images: ImageStore) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._images = images
        self.writable_root = containers.root
        """Where what containers write is kept; see `rootfs.py`."""

    def create(self, sandbox: Sandbox, config: pb.ContainerConfig, runtime: OCIRuntime) -> Container:
        """Raises CRIError; then nothing is left behind."""
        if not config.metadata.name:
            raise CRIError(Code.INVALID_ARGUMENT, "container config must include metadata with a name")
        if not sandbox.state.ready:
            raise CRIError(Code.FAILED_PRECONDITION, f'sandbox "{sandbox.id}" is not running')
        self._check_name(sandbox, config)
        image = self._image(config.image)
        container = self._record(sandbox, config, image)
        bundle = Bundle(self._containers.directory(container.id))
        self._images.hold(container.id, image)
        try:
            self._fill(container, sandbox, image, bundle, runtime)
            self._containers.add(container)
        except BaseException:
            self._images.release(container.id)
            self._containers.remove(container.id)
            raise
        return container

    def _record(self, sandbox: Sandbox, config: pb.ContainerConfig, image: Image) -> Container:
        id = new_id()
        state = ContainerState(sandbox_id=sandbox.id, image_id=image.id, created_at=time.time_ns())
        state.cgroup = f"{sandbox.state.cgroup_parent.rstrip('/')}/{id}"
        return Container(id, config, state)

    def _check_name(self, sandbox: Sandbox, config: pb.ContainerConfig) -> None:
        wanted = (config.metadata.name, config.metadata.attempt)
        for other in self._containers.all.values():
            metadata = other.config.metadata
            if other.state.sandbox_id == sandbox.id and (metadata.name, metadata.attempt) == wanted:
                text = f'failed to reserve container name "{wanted}": is reserved for "{other.id}"'
                raise CRIError(Code.UNKNOWN, text)

    def _image(self, spec: pb.ImageSpec) -> Image:
        image = self._images.get(spec.image)
        if image is None:
            raise CRIError(Code.NOT_FOUND, f'failed to resolve image "{spec.image}": not found')
        return image

    def _fill(self, container: Container, sandbox: Sandbox, image: Image, bundle: Bundle, runtime: OCIRuntime) -> None:
        config, state = container.config, container.state
        written = self._images.config(image)
        image_config = read_image_config(written)
        layers = self._images.layer_paths(image)
        try:
            user = resolve(layers, image_config.user, config.linux.security_context)
        except UnknownUser as error:
            raise CRIError(Code.UNKNOWN, f"failed to generate container spec: {error}") from None
        state.uid, state.gid, state.groups = user.uid, user.gid, list(user.groups)
        state.stop_signal = signal_name(config.stop_signal) or image_config.stop_signal or "SIGTERM"
        os.makedirs(bundle.directory, mode=0o700, exist_ok=True)
        os.makedirs(bundle.rootfs, mode=0o755)
        rootfs = Rootfs(image.layers[::-1], os.path.join(self.writable_root, container.id), [])
        if self.writable_root == self._containers.root:
            rootfs.writable = bundle.directory
        rootfs.make()
        image_mounts = self._image_mounts(container, bundle)
        rootfs.images = list(image_mounts.values())
        etc = self._sandboxes.etc(sandbox.id)
        hostname = sandbox.config.hostname or os.uname().nodename
        pins = self._sandboxes.pins(sandbox.id)
        ipc = config.linux.security_context.namespace_options.ipc
        given = Given(
            rootfs=bundle.rootfs,
            image=image_config,
            user=user,
            sandbox=sandbox.config,
            namespaces=self._namespaces(container, sandbox),
            hostname=hostname,
            etc={name: os.path.join(etc, name) for name in ("hostname", "resolv.conf")},
            shm="/dev/shm" if ipc == NODE else pins.shm,
            cgroup_path="" if runtime.keeps_off_cgroups else f"{state.cgroup}/{cgroups.INNER}",
            cgroup_mounts=cgroups.hierarchy().views(state.cgroup),
            hooks=join_hook(state.cgroup),
            image_mounts={path: mount.source for path, mount in image_mounts.items()},
            volumes=self._volumes(image_config, layers, bundle, config),
        )
        for mount in config.mounts:
            if mount.host_path and not mount.HasField("image") and not os.path.exists(mount.host_path):
                os.makedirs(mount.host_path, exist_ok=True)
        spec = build(config, given)
        with open(bundle.path("config.json"), "wb") as file:
            file.write(orjson.dumps(spec))
        rootfs.save(bundle.path("mounts.json"))
        self._images.hold_layers(container.id, rootfs.held())
        if config.log_path and sandbox.config.log_directory:
            os.symlink(os.path.join(sandbox.config.log_directory, config.log_path), bundle.path("log"))

    def _namespaces(self, container: Container, sandbox: Sandbox) -> dict[str, str]:
        options = container.config.linux.security_context.namespace_options
        pod = sandbox.config.linux.security_context.namespace_options
        pins = self._sandboxes.pins(sandbox.id)
        result = {}
        if pod.network != NODE:
            result["network"] = pins.path("net")
            result["uts"] = pins.path("uts")
        if pod.ipc != NODE:
            result["ipc"] = pins.path("ipc")
        if cgroups.hierarchy().version == 2 and not container.config.linux.security_context.privileged:
            result["cgroup"] = ""
        if options.pid == CONTAINER:
            result["pid"] = ""
        elif options.pid == POD:
            if not sandbox.state.pause_pid:
                # A sandbox that was made without a shared namespace: each container has its own.
                result["pid"] = ""
            else:
                result["pid"] = f"/proc/{sandbox.state.pause_pid}/ns/pid"
        elif options.pid == TARGET:
            target = self._containers.find(options.target_id)
            if target is None or target.state.sandbox_id != sandbox.id or target.state.state != "running":
                text = f'invalid target container "{options.target_id}": it is not a running container of the pod'
                raise CRIError(Code.INVALID_ARGUMENT, text)
            result["pid"] = f"/proc/{target.state.pid}/ns/pid"
        return result

    def _image_mounts(self, container: Container, bundle: Bundle) -> dict[str, ImageMount]:
        """Image volumes by the path that they have in the container."""
        found: dict[str, ImageMount] = {}
        for number, mount in enumerate(container.config.mounts):
            if not mount.image.image:
                continue
            image = self._image(mount.image)
            target = bundle.path(f"image-{number}")
            found[mount.container_path] = ImageMount(image.layers[::-1], target, mount.image_sub_path.strip("/"))
        return found

    @staticmethod
    def _volumes(image: ImageConfig, layers: list[str], bundle: Bundle, config: pb.ContainerConfig) -> dict[str, str]:
        """A volume that the image declares and the pod does not mount: a directory of the container's own, filled
        with what the image has there."""
        mounted = {os.path.normpath(mount.container_path) for mount in config.mounts}
        result = {}
        for number, path in enumerate(sorted(image.volumes)):
            if os.path.normpath(path) in mounted or not path.startswith("/"):
                continue
            source = bundle.path(f"volume-{number}")
            os.mkdir(source, 0o755)
            for layer in layers:
                below = os.path.realpath(os.path.join(layer, path.lstrip("/")))
                if below.startswith(os.path.realpath(layer) + "/") and os.path.isdir(below):
                    shutil.copytree(below, source, symlinks=True, dirs_exist_ok=True)
                    status = os.stat(below)
                    os.chown(source, status.st_uid, status.st_gid)
                    os.chmod(source, status.st_mode & 0o7777)
                    break
            result[path] = source
        return result


def read_image_config(written: dict[str, Any]) -> ImageConfig:
    config = written.get("config") or {}
    return ImageConfig(
        entrypoint=config.get("Entrypoint") or (),
        cmd=config.get("Cmd") or (),
        env=config.get("Env") or (),
        working_dir=config.get("WorkingDir") or "",
        user=config.get("User") or "",
        stop_signal=config.get("StopSignal") or "",
        volumes=tuple(config.get("Volumes") or ()),
    )
