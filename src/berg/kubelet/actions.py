"""What must be done to bring a pod's containers to where its spec wants them: a pure decision.

`compute` looks at the pod, at what the runtime says, and at the probes' results, and answers with `PodActions`;
`kuberuntime` carries them out.

Source: kuberuntime_manager.go computePodActions, kuberuntime_container.go computeInitContainerActions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from berg.kubelet import pod as p
from berg.kubelet.runtime_status import ContainerStatus, PodStatus
from berg.machinery.status import Obj

ProbeResult = Callable[[str, str], bool | None]
"""(probe type, container id) → True for success, False for failure, None when nothing is known."""


@dataclass(slots=True)
class Kill:
    name: str
    message: str
    reason: str = ""
    """startupProbe, livenessProbe or nothing: which probe's grace period counts."""


@dataclass(slots=True)
class PodActions:
    kill_pod: bool = False
    create_sandbox: bool = False
    sandbox_id: str = ""
    attempt: int = 0
    ephemeral: list[int] = field(default_factory=list)
    init: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    kill: dict[str, Kill] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        return not (self.kill_pod or self.create_sandbox or self.ephemeral or self.init or self.start or self.kill)


def sandbox_changed(pod: Obj, status: PodStatus) -> tuple[bool, int, str]:
    """(whether a new sandbox is needed, its attempt number, the sandbox it replaces or that stays)."""
    if not status.sandboxes:
        return True, 0, ""
    latest = status.sandboxes[0]
    if sum(s.ready for s in status.sandboxes) > 1 or not latest.ready:
        return True, latest.attempt + 1, latest.id
    if latest.host_network != p.host_network(pod):
        return True, latest.attempt + 1, ""
    if not p.host_network(pod) and not latest.ips:
        return True, latest.attempt + 1, latest.id
    return False, latest.attempt, latest.id


def should_restart(c: Obj, pod: Obj, status: PodStatus) -> bool:
    """Whether container `c` is to be started, judged by its newest instance."""
    if p.deletion_requested(pod):
        return False
    latest = status.find(c["name"])
    if latest is None:
        return True
    if latest.state == "running":
        return False
    if latest.state != "exited":
        return True
    return p.should_restart(c, pod, latest.exit_code)


def any_regular_created(pod: Obj, status: PodStatus) -> bool:
    found = (status.find(c["name"]) for c in p.containers(pod))
    return any(s is not None and s.state in ("created", "running", "exited") for s in found)


def _changed(c: Obj, s: ContainerStatus) -> bool:
    return s.hash != 0 and s.hash != p.hash_container(c)


def compute(pod: Obj, status: PodStatus, probe: ProbeResult) -> PodActions:
    new_sandbox, attempt, sandbox_id = sandbox_changed(pod, status)
    actions = PodActions(new_sandbox, new_sandbox, sandbox_id, attempt)
    if new_sandbox:
        return _with_new_sandbox(pod, status, actions)
    actions.ephemeral = [i for i, c in enumerate(p.ephemeral_containers(pod)) if status.find(c["name"]) is None]
    initialized = _init_actions(pod, status, probe, actions)
    if actions.kill_pod or not initialized:
        return actions
    kept = 0
    for i, c in enumerate(p.containers(pod)):
        s = status.find(c["name"])
        if s is None or s.state != "running":
            if should_restart(c, pod, status):
                actions.start.append(i)
                if s is not None and s.state == "unknown":
                    actions.kill[s.id] = Kill(
                        c["name"], 'Container is in "unknown" state, try killing it before restart'
                    )
            continue
        restart = c["restartPolicy"] != "Never" if c.get("restartPolicy") else p.restarts_on_failure(pod)
        reason = ""
        if _changed(c, s):
            message, restart = f"Container {c['name']} definition changed", True
        elif probe("liveness", s.id) is False:
            message, reason = f"Container {c['name']} failed liveness probe", "livenessProbe"
        elif probe("startup", s.id) is False:
            message, reason = f"Container {c['name']} failed startup probe", "startupProbe"
        else:
            kept += 1
            continue
        if restart:
            message += ", will be restarted"
            actions.start.append(i)
        actions.kill[s.id] = Kill(c["name"], message, reason)
    if not kept and not actions.start:
        actions.kill_pod = True
        actions.init = []
    return actions


def _with_new_sandbox(pod: Obj, status: PodStatus, actions: PodActions) -> PodActions:
    if not p.restarts_on_failure(pod) and actions.attempt != 0 and status.containers:
        actions.create_sandbox = False  # it ran, and is not to run again
        return actions
    start = []
    for i, c in enumerate(p.containers(pod)):
        s = status.find(c["name"])
        once = (c.get("restartPolicy") or p.restart_policy(pod)) == "OnFailure"
        if once and s is not None and s.state == "exited" and s.exit_code == 0:
            continue
        start.append(i)
    if not start and any_regular_created(pod, status):
        actions.create_sandbox = False  # everything has succeeded
        return actions
    if p.init_containers(pod):
        actions.init = [0]
    else:
        actions.start = start
    return actions


def _init_actions(pod: Obj, status: PodStatus, probe: ProbeResult, actions: PodActions) -> bool:
    """Fills in what init containers need; True when regular containers may run.

    Walks backwards: the newest init container that exists tells how far the pod is.
    """
    inits = p.init_containers(pod)
    if not inits:
        return True
    initialized = any(
        s is not None and s.state in ("created", "running") for s in (status.find(c["name"]) for c in p.containers(pod))
    )
    previously = initialized
    last = len(inits) - 1
    for i in range(last, -1, -1):
        c = inits[i]
        sidecar = p.is_sidecar(c)
        s = status.find(c["name"])
        if s is None:
            if previously and sidecar:
                actions.init.append(i)
            continue
        if previously and not sidecar:
            continue
        if s.state == "created":
            actions.init.append(i)
        elif s.state == "running":
            if sidecar:
                initialized = _running_sidecar(c, s, i, last, previously, probe, actions) or initialized
        elif s.state == "exited":
            if sidecar:
                actions.init.append(i)
            elif s.exit_code != 0:
                if not should_restart(c, pod, status):
                    actions.kill_pod, actions.init = True, []
                    return False
                actions.init.append(i)
            elif i == last:
                initialized = True
            else:
                actions.init.append(i + 1)
        else:
            message = 'Init container is in "unknown" state, try killing it before restart'
            if not sidecar:
                again = c["restartPolicy"] != "Never" if c.get("restartPolicy") else p.restarts_on_failure(pod)
                if not again:
                    actions.kill_pod, actions.init = True, []
                    return False
            actions.kill[s.id] = Kill(c["name"], message)
            actions.init.append(i)
        previously = True
    if not previously:
        actions.init.append(0)
    actions.init.reverse()
    return initialized


def _running_sidecar(
    c: Obj, s: ContainerStatus, i: int, last: int, previously: bool, probe: ProbeResult, actions: PodActions
) -> bool:
    """True when this sidecar, the last init container, is up, so that the pod is initialized."""
    if c.get("startupProbe"):
        startup = probe("startup", s.id)
        if startup is False:
            actions.kill[s.id] = Kill(c["name"], f"Init container {c['name']} failed startup probe", "startupProbe")
            actions.init.append(i)
        if startup is not True:
            return False
    if i != last and not previously:
        actions.init.append(i + 1)
    if _changed(c, s):
        actions.kill[s.id] = Kill(c["name"], f"Init container {c['name']} definition changed")
        actions.init.append(i)
    elif c.get("livenessProbe") and probe("liveness", s.id) is False:
        actions.kill[s.id] = Kill(c["name"], f"Init container {c['name']} failed liveness probe", "livenessProbe")
        actions.init.append(i)
    return i == last
