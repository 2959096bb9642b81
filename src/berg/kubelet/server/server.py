"""The kubelet's own server on port 10250: a table of routes, each asked for with authentication and authorization.

Source: pkg/kubelet/server/server.go.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from berg.kubelet import config as kubelet_config
from berg.kubelet import pod as p
from berg.kubelet import runtime_status
from berg.kubelet.server import logs as container_logs
from berg.kubelet.server import streams
from berg.kubelet.server.auth import Authorizer
from berg.kubelet.server.http import HTTPServer, Request, Response
from berg.machinery.status import ApiError, Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRIError

if TYPE_CHECKING:
    from berg.kubelet.kubelet import Kubelet

log = logging.getLogger(__name__)

JSON = "application/json"
Route = Callable[[Request, list[str]], Awaitable[Response]]


class KubeletServer:
    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        config = kubelet.config
        self._auth = Authorizer(
            kubelet.client,
            kubelet.clock,
            config.node_name,
            anonymous=config.anonymous_auth,
            webhook=config.webhook_authentication,
            mode=config.authorization_mode,
        )
        self._http = HTTPServer(self._handle)
        self._healthz = HTTPServer(self._local)
        self._routes: dict[str, Route] = {
            "healthz": self._health,
            "pods": self._pods,
            "runningpods": self._running_pods,
            "configz": self._configz,
            "containerLogs": self._container_logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
            "run": self._run,
            "logs": self._node_logs,
            "metrics": self._metrics,
            "stats": self._stats,
        }

    @property
    def port(self) -> int:
        return self._http.port

    async def start(self) -> None:
        config = self._kubelet.config
        tls = await asyncio.get_running_loop().run_in_executor(None, self._tls)
        await self._http.start(config.address, config.port, tls)
        if config.healthz_port:
            await self._healthz.start(config.healthz_bind_address, config.healthz_port, None)

    async def stop(self) -> None:
        await self._http.stop()
        await self._healthz.stop()

    def _tls(self) -> ssl.SSLContext:
        from berg.kubelet.server.certificate import serving_certificate

        config = self._kubelet.config
        certificate, key = serving_certificate(config, self._kubelet.node_ips)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["http/1.1"])
        if config.client_ca_file:
            context.load_verify_locations(config.client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    # -- dispatch

    async def _handle(self, request: Request) -> Response:
        user = await self._auth.authenticate(request)
        if user is None:
            return Response(401, b"Unauthorized")
        ok, why = await self._auth.allowed(user, request)
        if not ok:
            return Response(403, why.encode())
        return await self._route(request)

    async def _local(self, request: Request) -> Response:
        return await self._health(request, [])

    async def _route(self, request: Request) -> Response:
        first, *rest = request.path.strip("/").split("/")
        route = self._routes.get(first)
        debugging = first in ("exec", "attach", "portForward", "run", "containerLogs", "logs", "runningpods")
        if route is None or (debugging and not self._kubelet.config.enable_debugging_handlers):
            return Response(404, b"404 page not found\n")
        try:
            return await route(request, rest)
        except CRIError as e:
            return Response(500, str(e).encode())
        except ApiError as e:
            return Response(e.code, e.message.encode())

    # -- what is on the node

    async def _health(self, request: Request, rest: list[str]) -> Response:
        problem = self._kubelet.pleg.healthy()
        return Response(500, problem.encode()) if problem else Response(200, b"ok")

    async def _pods(self, request: Request, rest: list[str]) -> Response:
        items = []
        for uid, pod in self._kubelet.pods.pods.items():
            status = self._kubelet.statuses.get(uid) or pod.get("status") or {}
            items.append({**pod, "status": status})
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _running_pods(self, request: Request, rest: list[str]) -> Response:
        items = []
        for one in (await runtime_status.list_all(self._kubelet.cri)).values():
            if "running" not in one.states.values():
                continue
            status = await runtime_status.read(self._kubelet.cri, one.uid)
            items.append(
                {
                    "metadata": {
                        "name": one.name,
                        "namespace": one.namespace,
                        "uid": one.uid,
                        "creationTimestamp": None,
                    },
                    "spec": {
                        "containers": [
                            {"name": c.name, "image": c.image_ref, "resources": {}} for c in status.running()
                        ]
                    },
                    "status": {},
                }
            )
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _configz(self, request: Request, rest: list[str]) -> Response:
        return _json({"kubeletconfig": kubelet_config.to_document(self._kubelet.config)})

    async def _metrics(self, request: Request, rest: list[str]) -> Response:
        from berg.kubelet.server import metrics

        text = await metrics.render(self._kubelet, rest[0] if rest else "")
        if text is None:
            return Response(404, b"404 page not found\n")
        return Response(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    async def _stats(self, request: Request, rest: list[str]) -> Response:
        from berg.kubelet.server import stats

        if rest != ["summary"]:
            return Response(404, b"404 page not found\n")
        return _json(await stats.summary(self._kubelet))

    async def _node_logs(self, request: Request, rest: list[str]) -> Response:
        return self._log_file(rest)

    def _log_file(self, rest: list[str]) -> Response:
        """Files below /var/log."""
        root = Path("/var/log").resolve()
        path = root.joinpath(*rest).resolve() if rest else root
        if not path.is_relative_to(root) or not path.exists():
            return Response(404, b"404 page not found\n")
        if path.is_dir():
            names = sorted(f.name + ("/" if f.is_dir() else "") for f in path.iterdir())
            lines = "".join(f'<a href="{n}">{n}</a>\n' for n in names)
            return Response(200, f"<pre>\n{lines}</pre>\n".encode(), "text/html; charset=utf-8")
        return Response(200, _file(path))

    # -- one container

    def _find(self, namespace: str, name: str, uid: str = "") -> Obj:
        pod = self._kubelet.pods.by_name(namespace, name)
        if pod is None or (uid and uid not in (p.uid(pod), p.annotations(pod).get(p.CONFIG_HASH))):
            raise ApiError(404, "NotFound", "pod does not exist")
        return pod

    def _running_id(self, pod: Obj, container: str) -> str:
        status = self._kubelet.statuses.get(p.uid(pod)) or {}
        for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
            for s in status.get(key) or ():
                if s["name"] == container and "running" in s["state"]:
                    return s["containerID"].partition("://")[2]
        raise ApiError(404, "NotFound", f'container not found ("{container}")')

    def _target(self, rest: list[str]) -> tuple[Obj, str]:
        """`NAMESPACE/POD[/UID]/CONTAINER`."""
        if len(rest) not in (3, 4):
            raise ApiError(404, "NotFound", "404 page not found")
        return self._find(rest[0], rest[1], rest[2] if len(rest) == 4 else ""), rest[-1]

    async def _container_logs(self, request: Request, rest: list[str]) -> Response:
        if len(rest) != 3:
            return Response(404, b"404 page not found\n")
        namespace, name, container = rest
        pod = self._kubelet.pods.by_name(namespace, name)
        if pod is None:
            return Response(404, f'pod "{name}" does not exist\n'.encode())
        if p.container(pod, container) is None:
            return Response(404, f'container "{container}" not found in pod "{name}"\n'.encode())
        status = self._kubelet.statuses.get(p.uid(pod)) or pod.get("status") or {}
        try:
            options = container_logs.options(request, self._kubelet.clock.now())
            id = container_logs.container_id(name, status, container, options.previous)
        except container_logs.LogError as e:
            return Response(400, str(e).encode())
        try:
            found = await self._status(id)
        except CRIError:
            return Response(200, f"unable to retrieve container logs for {self._kubelet.state.name}://{id}".encode())

        async def running() -> bool:
            try:
                return (await self._status(id)).state == pb.CONTAINER_RUNNING
            except CRIError:
                return False

        reader = container_logs.Reader(Path(found.log_path), options, running)
        return Response(200, reader.chunks(), "text/plain")

    async def _status(self, id: str) -> Any:
        return (await self._kubelet.cri.container_status(pb.ContainerStatusRequest(container_id=id))).status

    async def _exec(self, request: Request, rest: list[str]) -> Response:
        pod, container = self._target(rest)
        answer = await self._kubelet.cri.exec(
            pb.ExecRequest(
                container_id=self._running_id(pod, container),
                cmd=request.query.get("command", []),
                tty=request.flag("tty"),
                stdin=request.flag("input") or request.flag("stdin"),
                stdout=request.flag("output") or request.flag("stdout"),
                stderr=(request.flag("error") or request.flag("stderr")) and not request.flag("tty"),
            )
        )
        return await streams.proxy(request, answer.url)

    async def _attach(self, request: Request, rest: list[str]) -> Response:
        pod, container = self._target(rest)
        c = p.container(pod, container)
        tty = bool(c and c.get("tty"))
        answer = await self._kubelet.cri.attach(
            pb.AttachRequest(
                container_id=self._running_id(pod, container),
                tty=tty,
                stdin=request.flag("input") or request.flag("stdin"),
                stdout=request.flag("output") or request.flag("stdout"),
                stderr=(request.flag("error") or request.flag("stderr")) and not tty,
            )
        )
        return await streams.proxy(request, answer.url)

    async def _port_forward(self, request: Request, rest: list[str]) -> Response:
        if len(rest) not in (2, 3):
            return Response(404, b"404 page not found\n")
        pod = self._find(rest[0], rest[1], rest[2] if len(rest) == 3 else "")
        status = await runtime_status.read(self._kubelet.cri, p.uid(pod))
        if not status.sandboxes or not status.sandboxes[0].ready:
            return Response(404, f'pod not found ("{p.show(pod)}")'.encode())
        ports = [int(x) for value in request.query.get("port", []) for x in value.split(",") if x.isdigit()]
        answer = await self._kubelet.cri.port_forward(
            pb.PortForwardRequest(pod_sandbox_id=status.sandboxes[0].id, port=ports)
        )
        return await streams.proxy(request, answer.url)

    async def _run(self, request: Request, rest: list[str]) -> Response:
        from berg.kubelet.lifecycle import exec_sync

        pod, container = self._target(rest)
        command = request.value("cmd").split(" ")
        code, output = await exec_sync(self._kubelet.cri, self._running_id(pod, container), command)
        if code:
            return Response(500, output + f"command terminated with exit code {code}".encode())
        return Response(200, output)


def _json(document: Obj) -> Response:
    return Response(200, orjson.dumps(document), JSON)


async def _file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as f:
        while chunk := f.read(1 << 16):
            yield chunk
