"""Generating a pod's status: phases, container states, conditions; and what of it is written."""

import pytest

from berg.kubelet import pod_conditions, pod_end, pod_phase, pod_status
from berg.kubelet.pod_status import Inputs
from berg.kubelet.runtime_status import ContainerStatus, PodStatus, SandboxStatus
from berg.kubelet.start_errors import StartError
from berg.kubelet.status_manager import diff

from .fakes import pod


def running(name, **kw):
    return ContainerStatus("id-" + name, name, "running", created_at=1, started_at=1, **kw)


def exited(name, code, **kw):
    reason = "Completed" if code == 0 else "Error"
    return ContainerStatus("id-" + name, name, "exited", 1, 1, 2, code, reason, **kw)


def runtime(*containers, ready=True):
    status = PodStatus("uid-p", "p", "ns", ["10.0.0.9"])
    status.sandboxes = [SandboxStatus("s", ready, 0, 1, ["10.0.0.9"], False)]
    status.containers = list(containers)
    return status


def generate(p, r, old=None, **kw):
    inputs = Inputs("fake", ["192.0.2.1"], **{k: v for k, v in kw.items() if k in ("reason", "probe")})
    return pod_status.generate(p, r, old or {}, inputs, terminal=kw.get("terminal", False))


def condition(status, type):
    return next(c for c in status["conditions"] if c["type"] == type)


def test_a_new_pod_waits():
    s = generate(pod(), PodStatus("uid-p"))
    assert s["phase"] == "Pending"
    assert s["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(s, "Ready")["message"] == "containers with unready status: [c]"
    assert condition(s, "PodReadyToStartContainers")["status"] == "False"
    assert condition(s, "Initialized")["status"] == "True"
    assert condition(s, "Ready")["observedGeneration"] == 1


def test_a_running_pod():
    s = generate(pod(), runtime(running("c")))
    assert s["phase"] == "Running"
    c = s["containerStatuses"][0]
    assert (c["ready"], c["started"], c["containerID"]) == (True, True, "fake://id-c")
    assert condition(s, "Ready") == {"type": "Ready", "status": "True", "observedGeneration": 1}
    assert (s["podIP"], s["hostIP"], s["qosClass"]) == ("10.0.0.9", "192.0.2.1", "BestEffort")


def test_a_probe_decides_readiness():
    p = pod(containers=[{"name": "c", "image": "i", "readinessProbe": {"exec": {}}, "startupProbe": {"exec": {}}}])
    s = generate(p, runtime(running("c")))
    assert (s["containerStatuses"][0]["started"], s["containerStatuses"][0]["ready"]) == (False, False)
    s = generate(p, runtime(running("c")), probe=lambda type, id: True)
    assert (s["containerStatuses"][0]["started"], s["containerStatuses"][0]["ready"]) == (True, True)
    s = generate(p, runtime(running("c")), probe=lambda type, id: type == "startup" or None)
    assert (s["containerStatuses"][0]["started"], s["containerStatuses"][0]["ready"]) == (True, False)


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Always", 0, "Running"),
        ("Always", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
    ],
)
def test_phase_after_the_container_ended(policy, code, phase):
    assert generate(pod(restartPolicy=policy), runtime(exited("c", code)))["phase"] == phase


def test_container_restart_rules():
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    c = {"name": "c", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [rule]}
    p = pod(restartPolicy="Never", containers=[c])
    assert generate(p, runtime(exited("c", 42)))["phase"] == "Running"
    assert generate(p, runtime(exited("c", 1)))["phase"] == "Failed"


def test_a_terminal_phase_is_final():
    s = generate(pod(), runtime(running("c")), {"phase": "Failed", "reason": "Evicted", "message": "m"})
    assert (s["phase"], s["reason"], s["message"]) == ("Failed", "Evicted", "m")


def test_a_deleted_pod_that_ended_well_succeeded():
    assert generate(pod(), runtime(exited("c", 0), ready=False), terminal=True)["phase"] == "Succeeded"
    assert generate(pod(), runtime(exited("c", 137), ready=False), terminal=True)["phase"] == "Failed"


def test_crash_loop_moves_the_end_into_the_last_state():
    why = StartError("CrashLoopBackOff", "back-off 10s restarting failed container=c pod=p_ns(uid-p)")
    s = generate(pod(), runtime(exited("c", 3, restart_count=2)), reason=lambda uid, name: why)
    c = s["containerStatuses"][0]
    assert c["state"]["waiting"] == {"reason": "CrashLoopBackOff", "message": why.message}
    assert c["lastState"]["terminated"]["exitCode"] == 3
    assert c["restartCount"] == 2
    assert s["phase"] == "Running"


def test_init_containers():
    p = pod(initContainers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
    s = generate(p, runtime(exited("a", 0)))
    assert s["phase"] == "Pending"
    assert [c["ready"] for c in s["initContainerStatuses"]] == [True, False]
    assert s["initContainerStatuses"][1]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert s["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(s, "Initialized")["message"] == "containers with incomplete status: [b]"
    never = pod(restartPolicy="Never", initContainers=[{"name": "a", "image": "i"}])
    assert generate(never, runtime(exited("a", 1)))["phase"] == "Failed"


def test_an_init_container_that_was_removed_counts_as_done():
    p = pod(initContainers=[{"name": "a", "image": "i"}])
    s = generate(p, runtime(running("c")))
    assert s["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert s["phase"] == "Running"


def test_a_sidecar_counts_as_started():
    p = pod(initContainers=[{"name": "a", "image": "i", "restartPolicy": "Always"}])
    s = generate(p, runtime(running("a")))
    assert s["phase"] == "Pending"
    assert condition(s, "Initialized")["status"] == "True"
    assert generate(p, runtime(running("a"), running("c")))["phase"] == "Running"


def test_a_container_that_vanished_ended_in_an_unknown_way():
    old = {"containerStatuses": [{"name": "c", "state": {"running": {}}, "lastState": {}, "restartCount": 0}]}
    c = generate(pod(), runtime(), old)["containerStatuses"][0]
    assert c["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert c["restartCount"] == 1


def test_what_was_said_of_an_ended_container_stays():
    said = {"exitCode": 1, "message": "why", "containerID": "fake://id-c"}
    old = {"containerStatuses": [{"name": "c", "state": {"terminated": said}, "containerID": "fake://id-c"}]}
    c = generate(pod(restartPolicy="Never"), runtime(exited("c", 1)), old)["containerStatuses"][0]
    assert c["state"] == {"terminated": said}


def test_readiness_gates():
    p = pod(readinessGates=[{"conditionType": "x/y"}])
    c = condition(generate(p, runtime(running("c"))), "Ready")
    assert c["reason"] == "ReadinessGatesNotReady"
    assert c["message"] == 'corresponding condition of pod readiness gate "x/y" does not exist.'
    p["status"]["conditions"] = [{"type": "x/y", "status": "True"}]
    s = generate(p, runtime(running("c")))
    assert condition(s, "Ready")["status"] == "True"
    assert condition(s, "x/y")["status"] == "True"


def test_host_network_pods_have_the_nodes_address():
    r = PodStatus("uid-p")
    assert generate(pod(hostNetwork=True), r)["podIP"] == "192.0.2.1"


def test_conditions_of_a_finished_pod():
    ended = pod_conditions.generate(pod(), runtime(), "Succeeded", [{"name": "c", "state": {}}], [])
    assert {c["reason"] for c in ended if c["type"] in ("Ready", "ContainersReady")} == {"PodCompleted"}


def test_an_unknown_container_keeps_the_pod_pending():
    assert pod_phase.phase(pod(), [], terminal=False, initialized=False) == "Pending"


def test_a_patch_names_only_what_changed():
    old = {
        "phase": "Pending",
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "R", "message": "m"},
            {"type": "other", "status": "True"},
        ],
    }
    new = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "1.1.1.1"}]}
    assert diff(old, new) == {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}],
        "podIPs": [{"ip": "1.1.1.1"}, {"$patch": "replace"}],
    }
    assert diff(new, new) == {}
    assert diff({"reason": "x"}, {}) == {"reason": None}
    assert diff({"containerStatuses": [{"name": "c"}]}, {"containerStatuses": [{"name": "c", "lastState": {}}]}) == {}


def test_the_end_of_a_pod_that_never_ran():
    one = pod()
    end = pod_end.final(one, generate(one, PodStatus("u")))
    assert end["phase"] == "Failed"
    assert end["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    one = pod(initContainers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
    end = pod_end.final(one, generate(one, PodStatus("u")))
    assert [list(s["state"]) for s in end["initContainerStatuses"]] == [["terminated"], ["waiting"]]
    assert list(end["containerStatuses"][0]["state"]) == ["waiting"]


def test_the_end_keeps_what_is_known():
    one = pod(restartPolicy="Never")
    end = pod_end.final(one, generate(one, runtime(exited("c", 0), ready=False), terminal=True))
    assert end["phase"] == "Succeeded"
    assert end["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
