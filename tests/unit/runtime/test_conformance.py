"""What every body of CRI must do, on each of them: the simulated runtime, Berg's own, and either through a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, Code, CRIError
from berg.runtime.own.config import OwnConfig
from berg.runtime.remote import RemoteRuntime
from berg.runtime.serve import RuntimeServer
from berg.runtime.sim import SimRuntime

from .harness import IMAGE, Harness

BODIES = [
    "sim",
    pytest.param("own", marks=pytest.mark.root),
    "sim-socket",
    pytest.param("own-socket", marks=pytest.mark.root),
]


@pytest.fixture(params=BODIES)
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CRI]:
    name, _, through = request.param.partition("-")
    body: CRI
    harness = None
    if name == "own":
        archive = request.getfixturevalue("busybox")
        group = f"/{tmp_path.name}"
        harness = Harness(OwnConfig(str(tmp_path / "root"), str(tmp_path / "state"), default_cgroup_parent=group))
        await harness.start()
        await harness.runtime.images.import_archive(str(archive))
        body = harness.runtime
    else:
        body = SimRuntime()
    if not through:
        yield body
    else:
        server = RuntimeServer(body, str(tmp_path / "cri.sock"))
        remote = RemoteRuntime(str(tmp_path / "cri.sock"))  # type: ignore[abstract]
        await server.start()
        await remote.start()
        yield remote
        await remote.stop()
        await server.stop()
    if harness is not None:
        await harness.remove_all()
    await body.stop()  # type: ignore[attr-defined]


def sandbox_config(name: str = "pod", **labels: str) -> pb.PodSandboxConfig:
    metadata = pb.PodSandboxMetadata(name=name, namespace="test", uid=f"uid-{name}", attempt=1)
    config = pb.PodSandboxConfig(metadata=metadata, labels=labels, annotations={"note": name})
    config.linux.security_context.namespace_options.pid = pb.CONTAINER
    return config


async def run(runtime: CRI, config: pb.PodSandboxConfig) -> str:
    return (await runtime.run_pod_sandbox(pb.RunPodSandboxRequest(config=config))).pod_sandbox_id


async def create(runtime: CRI, sandbox: str, config: pb.PodSandboxConfig, name: str = "c", **labels: str) -> str:
    container = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=name, attempt=2),
        image=pb.ImageSpec(image=IMAGE),
        command=["sleep", "1000"],
        labels=labels,
        annotations={"note": name},
    )
    container.linux.security_context.namespace_options.pid = pb.CONTAINER
    request = pb.CreateContainerRequest(pod_sandbox_id=sandbox, config=container, sandbox_config=config)
    return (await runtime.create_container(request)).container_id


async def status(runtime: CRI, id: str) -> pb.ContainerStatus:
    return (await runtime.container_status(pb.ContainerStatusRequest(container_id=id))).status


async def test_a_life(runtime: CRI) -> None:
    config = sandbox_config()
    sandbox = await run(runtime, config)
    found = (await runtime.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
    assert (found.state, found.metadata, dict(found.annotations)) == (
        pb.SANDBOX_READY,
        config.metadata,
        {"note": "pod"},
    )
    assert found.network.ip and found.created_at
    id = await create(runtime, sandbox, config)
    assert (await status(runtime, id)).state == pb.CONTAINER_CREATED
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    running = await status(runtime, id)
    assert (running.state, running.metadata.attempt, dict(running.annotations)) == (
        pb.CONTAINER_RUNNING,
        2,
        {"note": "c"},
    )
    assert running.image_ref and running.image_id and running.created_at <= running.started_at
    with pytest.raises(CRIError):
        await runtime.start_container(pb.StartContainerRequest(container_id=id))
    answer = await runtime.exec_sync(pb.ExecSyncRequest(container_id=id, cmd=["true"], timeout=10))
    assert answer.exit_code == 0
    await runtime.stop_container(pb.StopContainerRequest(container_id=id, timeout=0))
    ended = await status(runtime, id)
    assert ended.state == pb.CONTAINER_EXITED and ended.finished_at >= ended.started_at and ended.reason
    with pytest.raises(CRIError):
        await runtime.exec_sync(pb.ExecSyncRequest(container_id=id, cmd=["true"]))


async def test_stopping_a_sandbox_stops_its_containers_and_frees_its_address(runtime: CRI) -> None:
    config = sandbox_config()
    sandbox = await run(runtime, config)
    id = await create(runtime, sandbox, config)
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    await runtime.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    stopped = (await runtime.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
    assert (stopped.state, stopped.network.ip) == (pb.SANDBOX_NOTREADY, "")
    assert (await status(runtime, id)).state == pb.CONTAINER_EXITED


async def test_stopping_and_removing_again_is_fine_and_what_is_gone_is_not_found(runtime: CRI) -> None:
    config = sandbox_config()
    sandbox = await run(runtime, config)
    id = await create(runtime, sandbox, config)
    for _ in range(2):
        await runtime.stop_container(pb.StopContainerRequest(container_id=id))
        await runtime.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    for _ in range(2):
        await runtime.remove_container(pb.RemoveContainerRequest(container_id=id))
        await runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    for call in (
        runtime.container_status(pb.ContainerStatusRequest(container_id=id)),
        runtime.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox)),
        runtime.start_container(pb.StartContainerRequest(container_id=id)),
        runtime.create_container(pb.CreateContainerRequest(pod_sandbox_id=sandbox)),
    ):
        with pytest.raises(CRIError) as failure:
            await call
        assert failure.value.code is Code.NOT_FOUND


async def test_lists_and_filters(runtime: CRI) -> None:
    configs = [
        sandbox_config("one", app="a", tier="x"),
        sandbox_config("two", app="a"),
        sandbox_config("three", app="b"),
    ]
    ids = [await run(runtime, config) for config in configs]
    containers = [await create(runtime, ids[0], configs[0], name, kind=name) for name in ("c", "d")]
    await runtime.start_container(pb.StartContainerRequest(container_id=containers[0]))
    await runtime.stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=ids[1]))

    async def sandboxes(**wanted: object) -> set[str]:
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(**wanted))  # type: ignore[arg-type]
        return {item.metadata.name for item in (await runtime.list_pod_sandbox(request)).items}

    async def listed(**wanted: object) -> set[str]:
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(**wanted))  # type: ignore[arg-type]
        return {item.metadata.name for item in (await runtime.list_containers(request)).containers}

    assert await sandboxes() == {"one", "two", "three"}
    assert await sandboxes(id=ids[2]) == {"three"}
    assert await sandboxes(label_selector={"app": "a"}) == {"one", "two"}
    assert await sandboxes(label_selector={"app": "a", "tier": "x"}) == {"one"}
    assert await sandboxes(state=pb.PodSandboxStateValue(state=pb.SANDBOX_NOTREADY)) == {"two"}
    assert await listed() == await listed(pod_sandbox_id=ids[0]) == {"c", "d"}
    assert await listed(pod_sandbox_id=ids[2]) == set()
    assert await listed(state=pb.ContainerStateValue(state=pb.CONTAINER_RUNNING)) == {"c"}
    assert await listed(label_selector={"kind": "d"}) == await listed(id=containers[1]) == {"d"}


async def test_events_in_order_with_what_is_so(runtime: CRI) -> None:
    events = runtime.get_container_events(pb.GetEventsRequest())
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.2)  # a socket gives no sign that the listening has begun
    config = sandbox_config()
    sandbox = await run(runtime, config)
    id = await create(runtime, sandbox, config)
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    await runtime.stop_container(pb.StopContainerRequest(container_id=id))
    await runtime.remove_container(pb.RemoveContainerRequest(container_id=id))
    seen = [await first]
    while seen[-1].container_event_type != pb.CONTAINER_DELETED_EVENT:
        seen.append(await anext(events))
    of_container = [event for event in seen if event.container_id == id]
    assert [event.container_event_type for event in of_container] == [
        pb.CONTAINER_CREATED_EVENT,
        pb.CONTAINER_STARTED_EVENT,
        pb.CONTAINER_STOPPED_EVENT,
        pb.CONTAINER_DELETED_EVENT,
    ]
    states = [[status.state for status in event.containers_statuses] for event in of_container]
    assert states == [[pb.CONTAINER_CREATED], [pb.CONTAINER_RUNNING], [pb.CONTAINER_EXITED], []]
    assert all(event.pod_sandbox_status.id == sandbox and event.created_at for event in seen)
    await events.aclose()  # type: ignore[attr-defined]


async def test_status_version_and_figures(runtime: CRI) -> None:
    assert (await runtime.version(pb.VersionRequest())).runtime_api_version == "v1"
    conditions = (await runtime.status(pb.StatusRequest())).status.conditions
    assert {(condition.type, condition.status) for condition in conditions} == {
        ("RuntimeReady", True),
        ("NetworkReady", True),
    }
    config = sandbox_config()
    sandbox = await run(runtime, config)
    id = await create(runtime, sandbox, config)
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    [stats] = (await runtime.list_container_stats(pb.ListContainerStatsRequest())).stats
    assert stats.attributes.id == id and stats.cpu.timestamp and stats.memory.HasField("working_set_bytes")
    [pod] = (await runtime.list_pod_sandbox_stats(pb.ListPodSandboxStatsRequest())).stats
    assert pod.attributes.id == sandbox and [c.attributes.id for c in pod.linux.containers] == [id]
