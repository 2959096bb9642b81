"""Thousands of nodes on one event loop: registered, heartbeating, playing their pods' lives. Nothing runs.

One agent serves all nodes. It watches the pods that have a node (one watch, no polling), keeps of each only what it
needs to go on, and writes what a kubelet would: Pending → Running (→ Succeeded or Failed), and the final delete of a
pod that is asked to go. What is due later stands in one heap with one timer. A fixed number of workers sends.

    pod seen ─► due in start_delay ─► Running ─► due in run_for ─► Succeeded | Failed | Running again
    deletionTimestamp seen ─► due in terminate_delay ─► DELETE with grace period 0

Every node carries the label `berg.dev/simulated=true`, and every container ID begins with `sim://`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from berg.client.reflector import Reflector
from berg.client.rest import Client
from berg.machinery.clock import Clock, RealClock, rfc3339, rfc3339_micro
from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.machinery.tasks import end
from berg.testing import simnode, simpod
from berg.testing.simnode import SimConfig

Obj = dict[str, Any]
Work = Callable[[], Awaitable[None]]
log = logging.getLogger(__name__)

RETRY_S = 1.0


class _Node:
    __slots__ = ("index", "name", "next_ip", "pod_cidr", "uid")

    def __init__(self, name: str, index: int) -> None:
        self.name, self.index = name, index
        self.uid = ""
        self.pod_cidr = ""
        self.next_ip = 0


class _Pod:
    """What is remembered of a pod: enough to go on without its object."""

    __slots__ = ("how", "name", "namespace", "node", "restarts", "stage", "started", "uid")

    def __init__(self, namespace: str, name: str, uid: str, node: _Node, how: simpod.Script) -> None:
        self.namespace, self.name, self.uid, self.node, self.how = namespace, name, uid, node, how
        self.stage = "pending"
        """pending, running, ended, leaving"""
        self.started = ""
        self.restarts = 0


class SimNodes:
    """`count` simulated nodes, named `prefix` and a number. `start` returns when all are registered."""

    def __init__(
        self, client: Client, count: int, config: SimConfig | None = None, *, clock: Clock | None = None
    ) -> None:
        self._client = client
        self.config = config or SimConfig()
        self._clock: Clock = clock or RealClock()
        names = (f"{self.config.prefix}{i}" for i in range(count))
        self.nodes: dict[str, _Node] = {n: _Node(n, i) for i, n in enumerate(names)}
        self._pods: dict[str, _Pod] = {}
        self._work: asyncio.Queue[Work] = asyncio.Queue()
        self._due: list[tuple[float, int, Work]] = []
        self._ids = itertools.count()
        self._due_changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._nodes_r, self._pods_r = resource("nodes"), resource("pods")
        self._leases_r = resource("leases.coordination.k8s.io")

    async def start(self) -> None:
        make = asyncio.create_task
        self._tasks = [make(self._worker(), name="sim worker") for _ in range(self.config.requests)]
        await self._register_all()
        reflector = Reflector(self._client, self._pods_r, clock=self._clock, field_selector="spec.nodeName!=")
        reflector.sink = self
        self._tasks += [
            make(reflector.run(), name="sim pods"),
            make(self._timer(), name="sim timer"),
            make(self._heartbeats(), name="sim heartbeats"),
        ]

    async def stop(self) -> None:
        """The nodes stay in the API, and will be seen as lost, as when real machines are switched off."""
        await end(*self._tasks)
        self._tasks.clear()

    # Nodes

    async def _register_all(self) -> None:
        waiting = [asyncio.get_running_loop().create_future() for _ in self.nodes]
        for node, done in zip(self.nodes.values(), waiting, strict=True):
            self._work.put_nowait(lambda n=node, d=done: self._register(n, d))  # type: ignore[misc]
        await asyncio.gather(*waiting)

    async def _register(self, node: _Node, done: asyncio.Future[None]) -> None:
        try:
            now = self._clock.now()
            wanted = simnode.node(node.name, node.index, self.config, now)
            try:
                made = await self._client.create(self._nodes_r, wanted)
            except ApiError as e:
                if e.reason != "AlreadyExists":
                    raise
                made = await self._client.get(self._nodes_r, None, node.name)
            if not _is_ready(made):
                change = {"status": wanted["status"]}
                made = await self._client.patch(self._nodes_r, None, node.name, change, subresource="status")
            node.uid = made["metadata"].get("uid") or ""
            node.pod_cidr = (made.get("spec") or {}).get("podCIDR") or ""
            await self._first_beat(node)
        except Exception as e:
            if not done.done():
                done.set_exception(e)
        else:
            if not done.done():
                done.set_result(None)

    async def _renew(self, node: _Node) -> None:
        now = self._clock.now()
        spec = {"spec": {"renewTime": rfc3339_micro(now), "holderIdentity": node.name}}
        try:
            await self._client.patch(self._leases_r, "kube-node-lease", node.name, spec)
        except ApiError as e:
            if e.code != 404:
                raise
            await self._first_beat(node)

    async def _first_beat(self, node: _Node) -> None:
        try:
            lease = simnode.lease(node.name, self.config, self._clock.now(), node.uid)
            await self._client.create(self._leases_r, lease)
        except ApiError as e:
            if e.reason == "AlreadyExists":
                await self._renew(node)
            elif e.code not in (403, 404):  # the namespace is not there yet: the next heartbeat will try again
                raise

    async def _heartbeats(self) -> None:
        """Leases are renewed one after the other, evenly over the interval."""
        every = self.config.renew_s or (10.0 if len(self.nodes) <= 1000 else 20.0)
        while True:
            slices = 20
            nodes = list(self.nodes.values())
            for i in range(slices):
                await self._clock.sleep(every / slices)
                for node in nodes[i::slices]:
                    self._work.put_nowait(lambda n=node: self._renew(n))  # type: ignore[misc]

    # Pods, as the reflector tells of them

    def replace(self, objects: Iterable[Obj]) -> None:
        there: set[str] = set()
        for pod in objects:
            there.add(pod["metadata"].get("uid") or "")
            self.upsert(pod)
        self._pods = {uid: p for uid, p in self._pods.items() if uid in there}

    def upsert(self, pod: Obj) -> None:
        node = self.nodes.get(pod["spec"].get("nodeName") or "")
        if node is None:
            return
        meta = pod["metadata"]
        uid = meta.get("uid") or ""
        known = self._pods.get(uid)
        phase = (pod.get("status") or {}).get("phase") or "Pending"
        if known is None:
            how = simpod.script(pod, job_run_s=self.config.job_run_s)
            known = self._pods[uid] = _Pod(meta.get("namespace") or "", meta["name"], uid, node, how)
            if phase == "Pending" and not meta.get("deletionTimestamp"):
                self._after(how.start_delay_s, lambda p=known, o=pod: self._run(p, o))  # type: ignore[misc]
            elif phase == "Running":  # another agent, or an earlier life of this one, started it
                self._started(known, pod)
            else:
                known.stage = "ended"
        if meta.get("deletionTimestamp") and known.stage != "leaving":
            known.stage = "leaving"
            self._after(known.how.terminate_delay_s, lambda p=known: self._remove(p))  # type: ignore[misc]

    def remove(self, pod: Obj) -> None:
        self._pods.pop(pod["metadata"].get("uid") or "", None)

    async def _run(self, p: _Pod, pod: Obj) -> None:
        if p.stage not in ("pending", "running") or p.uid not in self._pods:
            return
        now = self._clock.now()
        host = simnode.address(p.node.index)
        ip = host if pod["spec"].get("hostNetwork") else self._pod_ip(p.node, pod)
        status = simpod.running(pod, p.how, now, host, ip, p.restarts)
        if await self._report(p, status):
            self._started(p, {**pod, "status": status})

    def _started(self, p: _Pod, pod: Obj) -> None:
        p.stage = "running"
        p.started = (pod.get("status") or {}).get("startTime") or rfc3339(self._clock.now())
        if p.how.run_for_s is not None:
            self._after(p.how.run_for_s, lambda: self._end(p, pod))

    async def _end(self, p: _Pod, pod: Obj) -> None:
        if p.stage != "running" or p.uid not in self._pods:
            return
        how = p.how
        if how.restart_policy == "Always" or (how.restart_policy == "OnFailure" and how.exit_code):
            p.restarts += 1
            await self._run(p, pod)
        elif await self._report(p, simpod.ended(pod, how, self._clock.now(), p.started)):
            p.stage = "ended"

    async def _report(self, p: _Pod, status: Obj) -> bool:
        try:
            patch = {"metadata": {"uid": p.uid}, "status": status}
            await self._client.patch(self._pods_r, p.namespace, p.name, patch, subresource="status")
        except ApiError as e:
            if e.code in (404, 409, 422):  # gone, or another pod has its name now
                self._pods.pop(p.uid, None)
                return False
            raise
        return True

    async def _remove(self, p: _Pod) -> None:
        try:
            await self._client.delete(self._pods_r, p.namespace, p.name, grace_period_s=0, uid=p.uid)
        except ApiError as e:
            if e.code not in (404, 409):
                raise

    def _pod_ip(self, node: _Node, pod: Obj) -> str:
        if ip := (pod.get("status") or {}).get("podIP"):
            return str(ip)
        node.next_ip += 1
        if node.pod_cidr and "." in node.pod_cidr:
            head = node.pod_cidr.split("/")[0].rsplit(".", 1)[0]
            return f"{head}.{node.next_ip % 253 + 2}"
        return simnode.pod_address(node.index, node.next_ip)

    # Work

    def _after(self, seconds: float, work: Work) -> None:
        if seconds <= 0:
            self._work.put_nowait(work)
            return
        heapq.heappush(self._due, (self._clock.monotonic() + seconds, next(self._ids), work))
        self._due_changed.set()

    async def _timer(self) -> None:
        while True:
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                self._work.put_nowait(heapq.heappop(self._due)[2])
            self._due_changed.clear()
            changed: asyncio.Future[bool] = asyncio.ensure_future(self._due_changed.wait())
            racing: set[asyncio.Future[bool]] = {changed}
            if self._due:
                racing.add(asyncio.ensure_future(self._sleep(self._due[0][0] - now)))
            try:
                await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in racing:
                    one.cancel()

    async def _sleep(self, seconds: float) -> bool:
        await self._clock.sleep(seconds)
        return True

    async def _worker(self) -> None:
        while True:
            work = await self._work.get()
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except ApiError as e:
                log.warning("simulated node: %s; trying again", e.message)
                self._after(RETRY_S, work)
            except Exception:
                log.exception("simulated node")


def _is_ready(node: Obj) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
