"""Carries an in-place resize out: in the runtime, in the pod's cgroup, or by a restart where the policy wants one.

What is in force in a running container is remembered from its start and each update; of a container that an
earlier kubelet started the API tells it.

Source: pkg/kubelet/kuberuntime/kuberuntime_manager.go computePodResizeAction, doPodResizeAction.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.kubelet import actions as act
from berg.kubelet import allocation, container_resources
from berg.kubelet import pod as p
from berg.kubelet.config import KubeletConfig
from berg.kubelet.runtime_status import ContainerStatus, PodStatus
from berg.kubelet.start_errors import SyncError
from berg.kubelet.uninterrupted import uninterrupted
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError


class Resizer:
    def __init__(
        self,
        cri: CRI,
        config: KubeletConfig,
        memory_capacity: int,
        cgroup_v2: bool,
        pod_limits: Callable[[Obj, bool], None],
    ) -> None:
        """`pod_limits`: sets the limits of the pod's cgroup; with True only where they become wider."""
        self._cri = cri
        self._config = config
        self._memory_capacity = memory_capacity
        self._cgroup_v2 = cgroup_v2
        self._pod_limits = pod_limits
        self._actuated: dict[tuple[str, str], Obj] = {}
        self.errors: dict[str, str] = {}
        """Pod UID → why its last resize failed."""

    def actuated(self, pod: Obj, c: Obj) -> None:
        """Container `c` has been made with its resources."""
        self._actuated[p.uid(pod), c["name"]] = c.get("resources") or {}

    def forget(self, uid: str) -> None:
        self.errors.pop(uid, None)
        for key in [k for k in self._actuated if k[0] == uid]:
            del self._actuated[key]

    def resizing(self, pod: Obj, status: PodStatus) -> list[tuple[Obj, ContainerStatus]]:
        """Running containers whose resources in force are not those of `pod`."""
        found = []
        for c in allocation.resizable_containers(pod):
            s = status.find(c["name"])
            if s is None or s.state != "running":
                continue
            now = self._actuated.setdefault((p.uid(pod), c["name"]), self._in_force(pod, c))
            if allocation.amounts(now) != allocation.amounts(c.get("resources")):
                found.append((c, s))
        return found

    def _in_force(self, pod: Obj, c: Obj) -> Obj:
        """Of a container that an earlier kubelet started: what the API says of it."""
        for key in ("containerStatuses", "initContainerStatuses"):
            for s in (pod.get("status") or {}).get(key) or ():
                if s["name"] == c["name"] and s.get("resources") is not None:
                    return s["resources"]
        return c.get("resources") or {}

    def plan(self, pod: Obj, status: PodStatus, actions: act.PodActions) -> list[tuple[Obj, ContainerStatus]] | None:
        """Those that are done in place; those that need a restart become part of `actions`. None: no resize at all."""
        if actions.kill_pod or actions.create_sandbox:
            return None
        changed = self.resizing(pod, status)
        if not changed:
            return None
        in_place = []
        for c, s in changed:
            now = allocation.amounts(self._actuated[p.uid(pod), c["name"]])
            if s.id in actions.kill:
                continue
            if allocation.needs_restart(c, allocation.amounts(c.get("resources")), now):
                actions.kill[s.id] = act.Kill(c["name"], f"Container {c['name']} resize requires restart")
                if p.is_sidecar(c):
                    actions.init.append(p.init_containers(pod).index(c))
                else:
                    actions.start.append(p.containers(pod).index(c))
            else:
                in_place.append((c, s))
        return in_place

    async def apply(self, pod: Obj, resizes: list[tuple[Obj, ContainerStatus]]) -> None:
        """The pod's cgroup is widened before and narrowed after its containers."""
        try:
            self._pod_limits(pod, True)
            for c, s in resizes:
                resources = container_resources.linux(
                    pod,
                    c,
                    self._memory_capacity,
                    cpu_cfs_quota=self._config.cpu_cfs_quota,
                    cgroup_v2=self._cgroup_v2,
                )
                request = pb.UpdateContainerResourcesRequest(container_id=s.id, linux=resources)
                await uninterrupted(self._cri.update_container_resources(request))
                self._actuated[p.uid(pod), c["name"]] = c.get("resources") or {}
            self._pod_limits(pod, False)
        except (CRIError, OSError) as e:
            self.errors[p.uid(pod)] = str(e)
            raise SyncError(f"resizing pod {p.show(pod)}: {e}") from e
        self.errors.pop(p.uid(pod), None)
