"""A whole cluster in one event loop, for tests.

    async with Cluster(nodes=3) as cluster:
        await cluster.client.create(resource("deployments.apps"), deployment)
        subprocess.run(["kubectl", "--kubeconfig", cluster.kubeconfig_path, "get", "pods"])

The API server is the real one, over a store that lives in memory, reached by HTTPS on a loopback port
(`kubeconfig_path`, `url`) and without any socket (`client`, `client_as`). Controllers and scheduler are the real ones
and use the in-memory way. Nodes are simulated: they say so, and nothing runs on them (see `simnodes`).

Several clusters may live at once. Nothing is left behind: no task, port or file.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from berg.machinery import collector
from berg.machinery.clock import Clock, FakeClock, RealClock
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError

if TYPE_CHECKING:
    from berg.apiserver.server import APIServer
    from berg.client.rest import Client
    from berg.controllers.manager import ControllerManager
    from berg.scheduler.config import SchedulerConfig
    from berg.scheduler.scheduler import Scheduler
    from berg.testing.simnode import SimConfig
    from berg.testing.simnodes import SimNodes

Obj = dict[str, Any]
T = TypeVar("T")


class Cluster:
    def __init__(
        self,
        *,
        nodes: int = 1,
        node_config: SimConfig | None = None,
        controllers: Sequence[str] | bool = True,
        scheduler: SchedulerConfig | bool = True,
        https: bool = True,
        clock: Clock | None = None,
        api: dict[str, Any] | None = None,
    ) -> None:
        """`controllers`: True for all, or names as for `--controllers`. `https=False`: no port at all.
        `api`: fields of the API server's `Config`."""
        self.clock: Clock = clock or RealClock()
        self.server: APIServer
        self.client: Client
        self.controllers: ControllerManager | None = None
        self.nodes: SimNodes | None = None
        self.kubeconfig_path = ""
        self._nodes, self._node_config = nodes, node_config
        self._controllers = ["*"] if controllers is True else list(controllers or ())
        self._scheduler_config = scheduler
        self._scheduler: Scheduler | None = None
        self._https = https
        self._api = api or {}
        self._dir: Path | None = None
        self._started: list[Any] = []

    async def __aenter__(self) -> Cluster:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Ready: the API answers, controllers are synced, the nodes registered, and pods get scheduled."""
        with collector.held():
            await self._start()

    async def _start(self) -> None:
        await self._start_api()
        parts: list[Any] = []
        if self._controllers:
            parts.append(self._make_controllers())
        if self._scheduler_config is True:
            from berg.testing.first_pod import FirstPod

            parts.append(FirstPod(self.client_as("system:kube-scheduler"), self._make_scheduler))
        elif self._scheduler_config is not False:  # a test that brings its own looks into it
            parts.append(self._make_scheduler())
        if self._nodes:
            from berg.testing.simnodes import SimNodes

            self.nodes = SimNodes(self.client, self._nodes, self._node_config, clock=self.clock)
            parts.append(self.nodes)
        self._started += parts
        ticking = asyncio.ensure_future(self._tick())
        try:
            await asyncio.gather(*(p.start() for p in parts))
            await self._settled()
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        """A fake clock moves while the cluster starts, since some parts look only now and then; later the test moves
        it."""
        while isinstance(self.clock, FakeClock):
            await self.clock.advance(0.5)
            await asyncio.sleep(0.001)

    async def _settled(self) -> None:
        if self._gives_accounts:  # no pod is let in before its service account is there
            await self.until("serviceaccounts", "default", lambda _: True)
        if self._judges_nodes and self.nodes is not None:  # they are born tainted as not ready
            for name in self.nodes.nodes:
                await self.until("nodes", name, _no_longer_new)

    async def stop(self) -> None:
        for part in reversed(self._started):
            await part.stop()
        self._started.clear()
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    @property
    def scheduler(self) -> Scheduler | None:
        """None where there is none. The default one starts with the first pod that has no node (see `first_pod`)."""
        return None if self._scheduler_config is False else self._make_scheduler()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    def client_as(self, name: str, *groups: str) -> Client:
        """A client in memory for that user, with RBAC applied."""
        from berg.apiserver.http.message import User
        from berg.client.rest import Client
        from berg.testing.memory import MemoryTransport

        user = User(name, groups=(*groups, "system:authenticated"))
        return Client(MemoryTransport(self.server.handle, user), user_agent=name)

    @property
    def _gives_accounts(self) -> bool:
        return bool({"*", "serviceaccount-controller"} & set(self._controllers))

    @property
    def _judges_nodes(self) -> bool:
        return bool({"*", "node-lifecycle-controller"} & set(self._controllers))

    # Parts

    async def _start_api(self) -> None:
        from berg.apiserver.config import Config
        from berg.apiserver.server import APIServer
        from berg.testing import pki

        self._dir = Path(tempfile.mkdtemp(prefix="berg-test-"))
        files = pki.write(self._dir)
        config = Config(
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            secure_port=0 if self._https else -1,
            etcd_servers=["memory:"],
            clock=self.clock,
            **{**files, **self._api},
        )
        # what waits for a controller that does not run would wait for ever
        if not self._gives_accounts:
            config.disable_admission_plugins = [*config.disable_admission_plugins, "ServiceAccount"]
        if not self._judges_nodes:
            config.disable_admission_plugins = [*config.disable_admission_plugins, "TaintNodesByCondition"]
        self.server = APIServer(config)
        self._started.append(self.server)
        await self.server.start()
        self.client = self.client_as("kubernetes-admin", "system:masters")
        if self._https:
            self.kubeconfig_path = str(pki.kubeconfig(self._dir, self.url))

    def _make_controllers(self) -> ControllerManager:
        from berg.controllers.config import Config
        from berg.controllers.manager import ControllerManager

        assert self._dir is not None
        config = Config(
            controllers=self._controllers,
            service_cluster_ip_range="10.96.0.0/12",
            cluster_signing_cert_file=str(self._dir / "ca.crt"),
            cluster_signing_key_file=str(self._dir / "ca.key"),
            root_ca_file=str(self._dir / "ca.crt"),
            service_account_private_key_file=str(self._dir / "sa.key"),
            feature_gates=self._api.get("feature_gates") or {},
        )
        client = self.client_as("system:kube-controller-manager", "system:masters")
        self.controllers = ControllerManager(client, config, clock=self.clock)
        return self.controllers

    def _make_scheduler(self) -> Scheduler:
        if self._scheduler is None:
            from berg.scheduler.config import SchedulerConfig
            from berg.scheduler.scheduler import Scheduler

            given = self._scheduler_config
            config = given if isinstance(given, SchedulerConfig) else None
            self._scheduler = Scheduler(self.client_as("system:kube-scheduler"), config, clock=self.clock)
        return self._scheduler

    # For tests

    async def until(
        self,
        r: Resource | str,
        name: str,
        holds: Callable[[Obj], bool],
        *,
        namespace: str | None = "default",
        timeout_s: float = 30,
    ) -> Obj:
        """The object as soon as `holds` is true of it, by a watch. Raises TimeoutError (in real time)."""
        r = resource(r) if isinstance(r, str) else r
        scope = namespace if r.namespaced else None
        async with asyncio.timeout(timeout_s):
            stream = self.client.watch(r, scope, field_selector=f"metadata.name={name}", send_initial_events=True)
            try:
                async for event in stream:
                    if event.type in ("ADDED", "MODIFIED") and holds(event.object):
                        return event.object
            finally:
                await stream.aclose()
        raise TimeoutError(name)

    async def until_gone(
        self, r: Resource | str, name: str, *, namespace: str | None = "default", timeout_s: float = 30
    ) -> None:
        r = resource(r) if isinstance(r, str) else r
        scope = namespace if r.namespaced else None
        async with asyncio.timeout(timeout_s):
            try:
                found = await self.client.get(r, scope, name)
            except ApiError as e:
                if e.code == 404:
                    return
                raise
            stream = self.client.watch(
                r,
                scope,
                field_selector=f"metadata.name={name}",
                resource_version=found["metadata"]["resourceVersion"],
            )
            try:
                async for event in stream:
                    if event.type == "DELETED":
                        return
            finally:
                await stream.aclose()

    async def eventually(self, check: Callable[[], Awaitable[T]], *, timeout_s: float = 30) -> T:
        """What `check` answers once it is truthy. For what no single watch shows."""
        async with asyncio.timeout(timeout_s):
            while not (found := await check()):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
            return found


def _no_longer_new(node: Obj) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return not any(t["key"] == "node.kubernetes.io/not-ready" for t in taints)
