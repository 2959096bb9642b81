import pytest

from berg.machinery.clock import FakeClock
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import Code, CRIError, methods
from berg.runtime.sim import SimRuntime


async def pod(runtime: SimRuntime, labels: dict[str, str] | None = None, **annotations: str) -> tuple[str, str]:
    config = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name="p", namespace="n", uid="u"),
        labels=labels or {},
        annotations={f"sim.berg.dev/{key.replace('_', '-')}": value for key, value in annotations.items()},
    )
    sandbox = (await runtime.run_pod_sandbox(pb.RunPodSandboxRequest(config=config))).pod_sandbox_id
    container = pb.ContainerConfig(metadata=pb.ContainerMetadata(name="c"), image=pb.ImageSpec(image="app:v1"))
    request = pb.CreateContainerRequest(pod_sandbox_id=sandbox, config=container, sandbox_config=config)
    return sandbox, (await runtime.create_container(request)).container_id


async def state(runtime: SimRuntime, id: str) -> tuple[int, int, str]:
    status = (await runtime.container_status(pb.ContainerStatusRequest(container_id=id))).status
    return status.state, status.exit_code, status.reason


async def test_a_container_runs_until_it_is_stopped() -> None:
    clock = FakeClock()
    runtime = SimRuntime(clock)
    _, id = await pod(runtime)
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    await clock.advance(100_000)
    assert (await state(runtime, id))[0] == pb.CONTAINER_RUNNING
    await runtime.stop_container(pb.StopContainerRequest(container_id=id, timeout=30))
    assert await state(runtime, id) == (pb.CONTAINER_EXITED, 0, "Completed")


async def test_a_pod_says_when_and_how_it_ends() -> None:
    clock = FakeClock()
    runtime = SimRuntime(clock)
    _, id = await pod(runtime, run_seconds="30", exit_code="3")
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    await clock.advance(29)
    assert (await state(runtime, id))[0] == pb.CONTAINER_RUNNING
    await clock.advance(2)
    assert await state(runtime, id) == (pb.CONTAINER_EXITED, 3, "Error")


async def test_jobs_complete() -> None:
    clock = FakeClock()
    runtime = SimRuntime(clock)
    _, id = await pod(runtime, {"batch.kubernetes.io/job-name": "j"})
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    await clock.advance(2)
    assert await state(runtime, id) == (pb.CONTAINER_EXITED, 0, "Completed")


async def test_addresses_are_the_nodes_and_come_back() -> None:
    runtime = SimRuntime(FakeClock())
    config = pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr="10.9.9.0/29"))
    await runtime.update_runtime_config(pb.UpdateRuntimeConfigRequest(runtime_config=config))
    pods = [await pod(runtime) for _ in range(5)]
    ips = [
        (await runtime.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=id))).status.network.ip
        for id, _ in pods
    ]
    assert ips == ["10.9.9.2", "10.9.9.3", "10.9.9.4", "10.9.9.5", "10.9.9.6"]
    with pytest.raises(CRIError, match="no IP addresses available"):
        await pod(runtime)
    await runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pods[2][0]))
    again, _ = await pod(runtime)
    status = await runtime.pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=again))
    assert status.status.network.ip == "10.9.9.4"


async def test_what_is_gone_is_not_found_and_removing_it_again_is_fine() -> None:
    runtime = SimRuntime(FakeClock())
    sandbox, id = await pod(runtime)
    await runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    with pytest.raises(CRIError) as failure:
        await state(runtime, id)
    assert failure.value.code is Code.NOT_FOUND
    await runtime.remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    await runtime.remove_container(pb.RemoveContainerRequest(container_id=id))


async def test_events_tell_of_every_step() -> None:
    runtime = SimRuntime(FakeClock())
    stream = runtime.get_container_events(pb.GetEventsRequest())
    import asyncio

    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    _, id = await pod(runtime)
    await runtime.start_container(pb.StartContainerRequest(container_id=id))
    await runtime.stop_container(pb.StopContainerRequest(container_id=id))
    kinds = [(await first).container_event_type] + [(await anext(stream)).container_event_type for _ in range(4)]
    created, started, stopped = pb.CONTAINER_CREATED_EVENT, pb.CONTAINER_STARTED_EVENT, pb.CONTAINER_STOPPED_EVENT
    assert kinds == [created, started, created, started, stopped]
    await stream.aclose()  # type: ignore[attr-defined]


def test_every_body_has_every_method() -> None:
    from berg.runtime.own.runtime import BergRuntime
    from berg.runtime.remote import RemoteRuntime

    for body in (SimRuntime, BergRuntime, RemoteRuntime):
        assert [method.name for method in methods() if not callable(getattr(body, method.name, None))] == []
