"""The socket's two sides against each other, over the simulated runtime."""

from pathlib import Path

import pytest

from berg.machinery.clock import FakeClock
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError
from berg.runtime.remote import RemoteRuntime, _uses_systemd
from berg.runtime.serve import RuntimeServer
from berg.runtime.sim import SimRuntime


async def test_calls_streams_and_failures(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "cri.sock")
    server = RuntimeServer(SimRuntime(FakeClock()), path)
    await server.start()
    remote = RemoteRuntime(path)
    try:
        await remote.start()
        assert (await remote.version(pb.VersionRequest())).runtime_name == "sim"
        config = pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="p", namespace="n", uid="u"))
        events = remote.get_container_events(pb.GetEventsRequest())
        id = (await remote.run_pod_sandbox(pb.RunPodSandboxRequest(config=config))).pod_sandbox_id
        parts = [part async for part in remote.stream_pod_sandboxes(pb.StreamPodSandboxesRequest())]
        assert [sandbox.id for part in parts for sandbox in part.pod_sandboxes] == [id]
        with pytest.raises(CRIError) as failure:
            await remote.container_status(pb.ContainerStatusRequest(container_id="x"))
        assert failure.value.code is Code.NOT_FOUND
        assert str(failure.value).startswith("rpc error: code = NotFound desc = an error occurred")
        await events.aclose()  # type: ignore[attr-defined]
    finally:
        await remote.stop()
        await server.stop()


async def test_nobody_there(tmp_path: Path) -> None:
    remote = RemoteRuntime(str(tmp_path / "none.sock"))
    try:
        with pytest.raises(CRIError) as failure:
            await remote.start()
        assert failure.value.code is Code.UNAVAILABLE
    finally:
        await remote.stop()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", False),
        ("{}", False),
        ('{"containerd":{"defaultRuntimeName":"r","runtimes":{"r":{"options":{"SystemdCgroup":true}}}}}', True),
        ('{"containerd":{"defaultRuntimeName":"r","runtimes":{"r":{"options":null}}}}', False),
    ],
)
def test_the_cgroup_driver_of_an_older_containerd(config: str, expected: bool) -> None:
    assert _uses_systemd(config) is expected
