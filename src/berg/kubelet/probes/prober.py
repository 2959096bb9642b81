"""Runs one probe once: exec, HTTP, TCP or gRPC.

The outcome is a `Result`; an `error` is a probe that could not be run at all, which changes nothing but is told.

Source: pkg/kubelet/prober/prober.go, pkg/probe.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from berg.kubelet import httpget, lifecycle
from berg.kubelet.env import expand, mapping_of
from berg.machinery.status import Obj
from berg.runtime.cri import CRI, Code, CRIError

AGENT = "kube-probe/1.37"
MAX_EXEC_OUTPUT = 10 * 1024
RETRIES = 3
_HEALTH = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


@dataclass(frozen=True, slots=True)
class Result:
    ok: bool
    output: str = ""
    warning: bool = False
    error: str = ""


async def run(cri: CRI, probe: Obj, c: Obj, container_id: str, pod_ip: str) -> Result:
    """With the retries that a probe gets when it could not even be tried."""
    result = Result(False)
    for _ in range(RETRIES):
        result = await _once(cri, probe, c, container_id, pod_ip)
        if not result.error:
            break
    return result


async def _once(cri: CRI, probe: Obj, c: Obj, container_id: str, pod_ip: str) -> Result:
    timeout_s = probe.get("timeoutSeconds") or 1
    if action := probe.get("exec"):
        return await _exec(cri, action, c, container_id, timeout_s)
    if action := probe.get("httpGet"):
        return await _http(action, c, pod_ip, timeout_s)
    if action := probe.get("tcpSocket"):
        return await _tcp(action, c, pod_ip, timeout_s)
    if action := probe.get("grpc"):
        return await _grpc(action, pod_ip, timeout_s)
    return Result(False, error=f"missing probe handler for {c['name']}")


async def _exec(cri: CRI, action: Obj, c: Obj, container_id: str, timeout_s: int) -> Result:
    static = {e["name"]: e.get("value") or "" for e in c.get("env") or ()}
    command = [expand(x, mapping_of(static)) for x in action.get("command") or ()]
    try:
        code, output = await lifecycle.exec_sync(cri, container_id, command, timeout_s)
    except CRIError as e:
        if e.code == Code.DEADLINE_EXCEEDED:
            return Result(False, f'command timed out: "{" ".join(command)}" timed out after {timeout_s}s')
        return Result(False, error=str(e))
    text = output[:MAX_EXEC_OUTPUT].decode("utf-8", "replace")
    return Result(code == 0, text)


async def _http(action: Obj, c: Obj, pod_ip: str, timeout_s: int) -> Result:
    try:
        url, headers = httpget.target(action, c, pod_ip)
    except httpget.HTTPError as e:
        return Result(False, error=str(e))
    try:
        answer = await httpget.get(url, headers, timeout_s, AGENT)
    except httpget.HTTPError as e:
        return Result(False, str(e))
    body = answer.body.decode("utf-8", "replace")
    if 200 <= answer.status < 300:
        return Result(True, body)
    if 300 <= answer.status < 400:
        return Result(True, f"Probe terminated redirects, Response body: {body}", warning=True)
    return Result(False, f"HTTP probe failed with statuscode: {answer.status}")


async def _tcp(action: Obj, c: Obj, pod_ip: str, timeout_s: int) -> Result:
    try:
        port = httpget.port_of(action["port"], c)
    except httpget.HTTPError as e:
        return Result(False, error=str(e))
    host = action.get("host") or pod_ip
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Result(False, f"dial tcp {where}: i/o timeout")
    except OSError as e:
        return Result(False, httpget.dial_error(e, host, port))
    writer.close()
    return Result(True)


async def _grpc(action: Obj, pod_ip: str, timeout_s: int) -> Result:
    import grpc  # heavy, and few pods need it
    import grpc.aio

    service = (action.get("service") or "").encode()
    host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
    address = f"{host}:{action['port']}"
    request = b"\x0a" + bytes([len(service)]) + service if service else b""
    # A proxy of the machine's environment is not for pods; reusing a channel would hide a server that is gone.
    options = [
        ("grpc.primary_user_agent", AGENT),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            async with asyncio.timeout(timeout_s):
                answer: bytes = await call(request, wait_for_ready=True)
        except TimeoutError:
            state = channel.get_state()
            if state is not grpc.ChannelConnectivity.READY:
                return Result(
                    False,
                    f'timeout: failed to connect service "{address}" within {timeout_s}s: context deadline exceeded',
                )
            return Result(False, f"timeout: health rpc did not complete within {timeout_s}s")
        except grpc.RpcError as e:
            if e.code() == grpc.StatusCode.UNIMPLEMENTED:
                return Result(
                    False,
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
                    f"{e.details()}",
                )
            return Result(False, f"error: health rpc probe failed: {e.details()}")
    status = answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0
    if status != 1:
        name = _HEALTH[status] if status < len(_HEALTH) else str(status)
        return Result(False, f'service unhealthy (responded with "{name}")')
    return Result(True, "service healthy")
