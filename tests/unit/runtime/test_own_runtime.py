"""Berg's runtime on real containers."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError
from berg.runtime.own import cgroups
from berg.runtime.own import syscalls as sc
from berg.runtime.own.launcher import Launcher, new_namespaces
from berg.runtime.own.rootfs import writable_root

from .harness import IMAGE, Harness, leftovers, read, write
from .images_made import entry, layer, link, oci_archive

pytestmark = pytest.mark.root


async def test_output_exit_code_and_times(harness: Harness) -> None:
    id = await harness.run("sh", "-c", "echo one; echo two >&2; printf three; exit 3")
    status = await harness.ended(id)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert status.created_at <= status.started_at <= status.finished_at
    by_stream = {
        stream: "".join(c for _, s, _, c in harness.log(status) if s == stream) for stream in ("stdout", "stderr")
    }
    assert by_stream == {"stdout": "one\nthree", "stderr": "two\n"}


async def test_success_is_completed(harness: Harness) -> None:
    status = await harness.ended(await harness.run("true"))
    assert (status.exit_code, status.reason) == (0, "Completed")


async def test_a_command_that_is_not_there(harness: Harness) -> None:
    id = await harness.create(await harness.sandbox(), "no-such-program")
    with pytest.raises(CRIError, match=r'exec: "no-such-program": executable file not found in \$PATH'):
        await harness.runtime.start_container(pb.StartContainerRequest(container_id=id))
    status = await harness.status(id)
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 128, "StartError")
    assert "no-such-program" in status.message


async def test_a_file_that_is_no_program(harness: Harness) -> None:
    with pytest.raises(CRIError, match='exec: "/etc/passwd": permission denied'):
        await harness.run("/etc/passwd")


async def test_exec(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    answer = await harness.exec(id, "sh", "-c", "echo out; echo err >&2; hostname; exit 7")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\npod0\n", b"err\n", 7)
    with pytest.raises(CRIError, match="executable file not found"):
        await harness.exec(id, "no-such-program")


async def test_an_exec_that_takes_too_long_is_killed(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    with pytest.raises(CRIError) as failure:
        await harness.exec(id, "sleep", "4321", timeout=1)
    assert failure.value.code is Code.DEADLINE_EXCEEDED
    assert b"4321" not in (await harness.exec(id, "ps")).stdout


async def test_stop_asks_first(harness: Harness) -> None:
    id = await harness.run("sh", "-c", "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
    path = Path((await harness.status(id)).log_path)
    await harness.until(lambda: "ready" in read(path))
    await harness.runtime.stop_container(pb.StopContainerRequest(container_id=id, timeout=10))
    status = await harness.status(id)
    assert status.exit_code == 5
    assert [content for *_, content in harness.log(status)] == ["ready\n", "asked\n"]


async def test_stop_kills_who_does_not_listen(harness: Harness) -> None:
    id = await harness.run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    await harness.runtime.stop_container(pb.StopContainerRequest(container_id=id, timeout=1))
    status = await harness.status(id)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)
    await harness.runtime.stop_container(pb.StopContainerRequest(container_id=id, timeout=1))


async def test_out_of_memory(harness: Harness) -> None:
    def limit(config: pb.ContainerConfig) -> None:
        config.linux.resources.memory_limit_in_bytes = 16 << 20

    id = await harness.run("sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M; exit $?", adjust=limit)
    status = await harness.ended(id)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_limits_are_in_the_cgroup_and_can_be_changed(harness: Harness) -> None:
    def limit(config: pb.ContainerConfig) -> None:
        config.linux.resources.memory_limit_in_bytes = 64 << 20
        config.linux.resources.cpu_period = 100_000
        config.linux.resources.cpu_quota = 50_000

    id = await harness.run("sleep", "1000", adjust=limit)
    path = f"{harness.config.default_cgroup_parent}/{id}"
    assert cgroups.processes(path)
    usage = cgroups.usage(path)
    assert usage.memory_available is not None and usage.memory_available < 64 << 20
    update = pb.UpdateContainerResourcesRequest(container_id=id)
    update.linux.memory_limit_in_bytes = 128 << 20
    await harness.runtime.update_container_resources(update)
    after = cgroups.usage(path).memory_available
    assert after is not None and 64 << 20 < after <= 128 << 20
    resources = (await harness.status(id)).resources.linux
    assert (resources.memory_limit_in_bytes, resources.cpu_quota) == (128 << 20, 50_000)


async def test_the_container_sees_its_own_limit(harness: Harness) -> None:
    def limit(config: pb.ContainerConfig) -> None:
        config.linux.resources.memory_limit_in_bytes = 64 << 20

    name = "memory.max" if cgroups.hierarchy().version == 2 else "memory/memory.limit_in_bytes"
    assert await harness.output("cat", f"/sys/fs/cgroup/{name}", adjust=limit) == f"{64 << 20}\n"


async def test_user_and_groups(harness: Harness) -> None:
    def user(config: pb.ContainerConfig) -> None:
        config.linux.security_context.run_as_user.value = 1000
        config.linux.security_context.run_as_group.value = 2000
        config.linux.security_context.supplemental_groups.extend([3000, 4000])

    assert await harness.output("sh", "-c", "id -u; id -g; id -G", adjust=user) == "1000\n2000\n2000 3000 4000\n"


async def test_readonly_root_mounts_and_environment(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "volume" / "file", "from the host\n")

    def adjust(config: pb.ContainerConfig) -> None:
        config.linux.security_context.readonly_rootfs = True
        config.mounts.add(container_path="/v/rw", host_path=str(tmp_path / "volume"))
        config.mounts.add(container_path="/v/ro", host_path=str(tmp_path / "volume"), readonly=True)
        config.envs.add(key="COLOUR", value=b"gr\xc3\xbcn")
        config.working_dir = "/v"

    script = "touch /x || echo no; touch /v/ro/x || echo no; cp rw/file rw/copy; cat ro/copy; echo $COLOUR"
    assert await harness.output("sh", "-c", script, adjust=adjust) == "no\nno\nfrom the host\ngrün\n"
    assert read(tmp_path / "volume" / "copy") == "from the host\n"


async def test_a_shared_pid_namespace(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    await harness.remove_all()
    config = pb.PodSandboxConfig()
    config.CopyFrom(sandbox[1])
    config.linux.security_context.namespace_options.pid = pb.POD
    id = (await harness.runtime.run_pod_sandbox(pb.RunPodSandboxRequest(config=config))).pod_sandbox_id
    await harness.run("sleep", "1111", sandbox=(id, config))
    seen = await harness.output("ps", sandbox=(id, config))
    assert "sleep 1111" in seen and "berg-pause" in seen


async def test_who_shares_memory_shares_it(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    await harness.ended(await harness.run("sh", "-c", "echo hello >/dev/shm/note", sandbox=sandbox))
    assert await harness.output("cat", "/dev/shm/note", sandbox=sandbox) == "hello\n"
    with pytest.raises(AssertionError):
        assert await harness.output("cat", "/dev/shm/note") == "hello\n"


async def test_logs_can_be_rotated(harness: Harness) -> None:
    id = await harness.run("sh", "-c", "echo before; while [ ! -e /go ]; do sleep 0.01; done; echo after")
    path = Path((await harness.status(id)).log_path)
    await harness.until(lambda: "before" in read(path))
    os.rename(path, f"{path}.old")
    await harness.runtime.reopen_container_log(pb.ReopenContainerLogRequest(container_id=id))
    await harness.exec(id, "touch", "/go")
    status = await harness.ended(id)
    assert [content for *_, content in harness.log(status)] == ["after\n"]
    assert "before" in read(Path(f"{path}.old"))
    with pytest.raises(CRIError):
        await harness.runtime.reopen_container_log(pb.ReopenContainerLogRequest(container_id=id))


async def test_a_device_and_no_other(harness: Harness) -> None:
    def device(config: pb.ContainerConfig) -> None:
        config.devices.add(container_path="/dev/mine", host_path="/dev/kmsg", permissions="r")

    assert await harness.output("sh", "-c", "ls -l /dev/mine | cut -c 1", adjust=device) == "c\n"
    script = (
        "mknod /own b 254 0; mknod /zero c 1 5; for d in /own /zero; do dd if=$d of=/dev/null count=1; echo $?; done"
    )
    assert await harness.output("sh", "-c", script) == "1\n0\n"


async def test_the_default_seccomp_profile(harness: Harness) -> None:
    def confine(config: pb.ContainerConfig) -> None:
        config.linux.security_context.seccomp.profile_type = pb.SecurityProfile.RuntimeDefault
        config.linux.security_context.capabilities.add_capabilities.append("SYS_ADMIN")
        config.linux.security_context.capabilities.drop_capabilities.append("MKNOD")

    script = "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null && echo may || echo may not"
    assert await harness.output("sh", "-c", script, adjust=confine) == "Seccomp:\t2\nmay\n"


async def test_events(harness: Harness) -> None:
    stream = harness.runtime.get_container_events(pb.GetEventsRequest())
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    sandbox = await harness.sandbox()
    id = await harness.run("true", sandbox=sandbox)
    await harness.ended(id)
    seen = [await first]
    while seen[-1].container_event_type != pb.CONTAINER_STOPPED_EVENT:
        seen.append(await anext(stream))
    assert [(event.container_id == id, event.container_event_type) for event in seen] == [
        (False, pb.CONTAINER_CREATED_EVENT),
        (False, pb.CONTAINER_STARTED_EVENT),
        (True, pb.CONTAINER_CREATED_EVENT),
        (True, pb.CONTAINER_STARTED_EVENT),
        (True, pb.CONTAINER_STOPPED_EVENT),
    ]
    assert seen[-1].containers_statuses[0].exit_code == 0
    await stream.aclose()  # type: ignore[attr-defined]


async def test_images_in_use_keep_their_layers(harness: Harness) -> None:
    id = await harness.run("sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done; ls /bin/busybox")
    await harness.runtime.remove_image(pb.RemoveImageRequest(image=pb.ImageSpec(image=IMAGE)))
    assert not (await harness.runtime.list_images(pb.ListImagesRequest())).images
    await harness.exec(id, "touch", "/go")
    status = await harness.ended(id)
    assert [content for *_, content in harness.log(status)] == ["/bin/busybox\n"]
    await harness.remove_all()
    assert os.listdir(harness.runtime.images.layers_directory) == []


async def test_an_image_as_a_volume(harness: Harness, tmp_path: Path) -> None:
    write(tmp_path / "secret", "the node's\n")
    base = layer(
        entry("data/"), entry("data/old", b"old\n"), entry("data/both", b"below\n"), link("out", str(tmp_path))
    )
    top = layer(entry("data/both", b"above\n"), entry("data/.wh.old", b""))
    oci_archive(tmp_path / "volume.tar", [base, top], name="example.org/volume:1")
    await harness.runtime.images.import_archive(str(tmp_path / "volume.tar"))

    def mounted(sub_path: str) -> Callable[[pb.ContainerConfig], None]:
        def adjust(config: pb.ContainerConfig) -> None:
            image = pb.ImageSpec(image="example.org/volume:1")
            config.mounts.add(container_path="/v", image=image, image_sub_path=sub_path)

        return adjust

    script = "ls /v /v/data; touch /v/x || echo readonly"
    assert (
        await harness.output("sh", "-c", script, adjust=mounted("")) == "/v:\ndata\nout\n\n/v/data:\nboth\nreadonly\n"
    )
    assert await harness.output("cat", "/v/both", adjust=mounted("data")) == "above\n"
    assert await harness.output("cat", "/v", adjust=mounted("data/both")) == "above\n"
    with pytest.raises(CRIError, match="failed to start container"):
        await harness.run("cat", "/v", adjust=mounted("out/secret"))


async def test_a_data_directory_that_cannot_hold_upper_directories(tmp_path: Path) -> None:
    """As within a container, whose own root is an overlay."""

    def choose() -> str:
        with new_namespaces("mnt"):
            sc.mount("", "/", flags=sc.MS_REC | sc.MS_SLAVE)
            for name in ("lower", "upper", "work", "overlay", "state"):
                os.mkdir(tmp_path / name)
            options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
            sc.mount("overlay", f"{tmp_path}/overlay", "overlay", 0, options)
            return writable_root([f"{tmp_path}/overlay", f"{tmp_path}/state"])

    launcher = Launcher()
    try:
        assert await launcher.call(choose) == f"{tmp_path}/state"
    finally:
        launcher.stop()


async def test_nothing_stays(harness: Harness) -> None:
    sandbox = await harness.sandbox()
    await harness.run("sh", "-c", "sleep 1000 & sleep 1000", sandbox=sandbox)
    await harness.ended(await harness.run("true", sandbox=sandbox))
    await harness.create(sandbox, "true")
    needles = (harness.config.root, harness.config.state, harness.config.default_cgroup_parent + "/")
    assert leftovers(*needles)
    await harness.remove_all()
    await harness.until(lambda: not leftovers(*needles))
    for directory in ("sandboxes", "containers"):
        assert os.listdir(harness.config.under_root(directory)) == []
    for directory in ("ns", "io", "events", "crun"):
        assert os.listdir(harness.config.under_state(directory)) == []


async def test_two_of_one_name_are_one_too_many(harness: Harness) -> None:
    _, config = await harness.sandbox()
    with pytest.raises(CRIError, match="is reserved for"):
        await harness.runtime.run_pod_sandbox(pb.RunPodSandboxRequest(config=config))


async def test_a_sysctl_of_the_node_is_refused(harness: Harness) -> None:
    linux = pb.LinuxPodSandboxConfig(sysctls={"vm.swappiness": "1"})
    with pytest.raises(CRIError, match="sysctl"):
        await harness.sandbox(linux=linux)
    assert leftovers(harness.config.state) == []
    sandbox = await harness.sandbox(linux=pb.LinuxPodSandboxConfig(sysctls={"net.core.somaxconn": "99"}))
    assert await harness.output("cat", "/proc/sys/net/core/somaxconn", sandbox=sandbox) == "99\n"


async def test_files_of_the_runtime_are_not_for_everybody(harness: Harness) -> None:
    id = await harness.run("sleep", "1000")
    for path in (harness.config.under_root("containers", id), harness.config.under_root("images")):
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 in (0, 0o011, 0o055)
    assert stat.S_IMODE(os.stat(harness.config.under_root("containers")).st_mode) & 0o066 == 0
