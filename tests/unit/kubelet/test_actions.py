"""What is to be done to a pod: the decisions of actions.compute."""

from berg.kubelet import pod as p
from berg.kubelet.actions import compute
from berg.kubelet.runtime_status import PodStatus

from .fakes import pod
from .test_status import exited, running, runtime


def nothing(type, id):
    return None


def hashed(one, container):
    container.hash = p.hash_container(p.container(one, container.name))
    return container


def test_a_new_pod_gets_a_sandbox_and_all_containers():
    a = compute(pod(), PodStatus("u"), nothing)
    assert (a.create_sandbox, a.attempt, a.start, a.init) == (True, 0, [0], [])


def test_init_containers_come_first_one_after_the_other():
    one = pod(initContainers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
    assert compute(one, PodStatus("u"), nothing).init == [0]
    a = compute(one, runtime(exited("a", 0)), nothing)
    assert (a.init, a.start) == ([1], [])
    a = compute(one, runtime(exited("a", 0), exited("b", 0)), nothing)
    assert (a.init, a.start) == ([], [0])
    assert compute(one, runtime(running("a")), nothing).nothing


def test_a_failed_init_container_ends_a_pod_that_does_not_restart():
    one = pod(restartPolicy="Never", initContainers=[{"name": "a", "image": "i"}])
    assert compute(one, runtime(exited("a", 1)), nothing).kill_pod
    again = pod(initContainers=[{"name": "a", "image": "i"}])
    assert compute(again, runtime(exited("a", 1)), nothing).init == [0]


def test_sidecars_start_in_order_and_restart():
    side = {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {}}}
    one = pod(initContainers=[side, {"name": "b", "image": "i"}])
    assert compute(one, runtime(running("s")), nothing).init == []
    assert compute(one, runtime(running("s")), lambda type, id: True).init == [1]
    a = compute(one, runtime(exited("s", 1), exited("b", 0), running("c")), nothing)
    assert (a.init, a.start) == ([0], [])


def test_a_running_pod_is_left_alone():
    assert compute(pod(), runtime(running("c")), nothing).nothing


def test_a_dead_sandbox_is_replaced():
    a = compute(pod(), runtime(exited("c", 0), ready=False), nothing)
    assert (a.kill_pod, a.create_sandbox, a.attempt, a.sandbox_id) == (True, True, 1, "s")
    a = compute(pod(restartPolicy="Never"), runtime(exited("c", 0), ready=False), nothing)
    assert (a.kill_pod, a.create_sandbox) == (True, False)


def test_probe_failures_kill():
    a = compute(pod(), runtime(running("c")), lambda type, id: False if type == "liveness" else None)
    kill = a.kill["id-c"]
    assert (kill.message, kill.reason) == ("Container c failed liveness probe, will be restarted", "livenessProbe")
    assert a.start == [0]
    a = compute(pod(restartPolicy="Never"), runtime(running("c")), lambda type, id: False)
    assert a.kill["id-c"].message == "Container c failed liveness probe"
    assert a.kill_pod  # nothing is left to keep


def test_a_new_image_replaces_the_container():
    one = pod()
    container = hashed(one, running("c"))
    assert compute(one, runtime(container), nothing).nothing
    one["spec"]["containers"][0]["image"] = "other"
    a = compute(one, runtime(container), nothing)
    assert a.kill["id-c"].message == "Container c definition changed, will be restarted"


def test_nothing_starts_in_a_pod_that_is_being_deleted():
    one = pod()
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert compute(one, runtime(exited("c", 1)), nothing).start == []


def test_ephemeral_containers_start_once():
    one = pod(ephemeralContainers=[{"name": "e", "image": "i"}])
    assert compute(one, runtime(running("c")), nothing).ephemeral == [0]
    assert compute(one, runtime(running("c"), exited("e", 1)), nothing).ephemeral == []
