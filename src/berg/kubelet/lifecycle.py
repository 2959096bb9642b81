"""Lifecycle hooks: postStart and preStop, each an exec, an HTTP GET or a sleep.

Source: pkg/kubelet/lifecycle/handlers.go.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.kubelet import httpget
from berg.kubelet import pod as p
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError

HTTP_TIMEOUT_S = 3600.0
AGENT = "kube-lifecycle/1.37"


class HookError(Exception):
    """The text is what PostStartHookError shows."""


async def exec_sync(cri: CRI, id: str, command: list[str], timeout_s: int = 0) -> tuple[int, bytes]:
    """(exit code, output of both streams). Raises CRIError."""
    answer = await cri.exec_sync(pb.ExecSyncRequest(container_id=id, cmd=command, timeout=timeout_s))
    return answer.exit_code, answer.stdout + answer.stderr


async def run(
    cri: CRI,
    clock: Clock,
    pod: Obj,
    c: Obj,
    id: str,
    handler: Obj,
    pod_ip: str,
    event: Callable[[Obj, str, str, str], None] = lambda *_: None,
) -> None:
    """Raises HookError when the hook fails."""
    where = f'for Container "{c["name"]}" in Pod "{p.show(pod)}"'
    if action := handler.get("exec"):
        command = action.get("command") or []
        shown = f"Exec lifecycle hook ([{' '.join(command)}]) {where} failed - error: "
        try:
            code, output = await exec_sync(cri, id, command)
        except CRIError as e:
            raise HookError(f'{shown}{e}, message: ""') from e
        if code:
            text = output.decode("utf-8", "replace")
            raise HookError(f"{shown}command '{' '.join(command)}' exited with {code}: {text}, message: {_quote(text)}")
    elif action := handler.get("httpGet"):
        try:
            url, headers = httpget.target(action, c, pod_ip)
            await httpget.get(url, headers, HTTP_TIMEOUT_S, AGENT)
        except httpget.HTTPError as e:
            raise HookError(f"HTTP lifecycle hook ({action.get('path', '')}) {where} failed - error: {e}") from e
    elif action := handler.get("sleep"):
        await clock.sleep(action.get("seconds") or 0)
    else:
        raise HookError(f"Cannot run handler: invalid handler: {handler}")


def _quote(text: str) -> str:
    import orjson

    return orjson.dumps(text).decode()
