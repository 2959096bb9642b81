"""Asking one admission webhook, and what it means when that fails."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from berg.apiserver.admission.interface import Api, Attributes
from berg.apiserver.admission.webhook.hooks import CallFailed, Invocation
from berg.apiserver.http.hook_credentials import NOBODY, configured
from berg.apiserver.http.hooks import HookError, Hooks
from berg.machinery.status import Obj

_DEFAULT_TIMEOUT_S = 10


class Caller:
    def __init__(self, api: Api, config: Obj) -> None:
        """`config`: a WebhookAdmissionConfiguration, or nothing. Raises BadCredentials."""
        credentials = configured(config)
        shared: Hooks | None = getattr(api, "hooks", None) if credentials is NOBODY else None
        self._hooks = shared or Hooks(api, credentials)
        self._tracing: Any = getattr(api, "tracing", None)
        self.close = self._hooks.close

    async def ask(self, a: Attributes, invocation: Invocation, uid: str, body: bytes, *, mutating: bool) -> Any:
        """The webhook's answer, decoded. Raises CallFailed."""
        hook, tracing = invocation.hook, self._tracing
        seconds = hook.body.get("timeoutSeconds") or _DEFAULT_TIMEOUT_S
        with self._span(a, invocation, uid, mutating=mutating):
            headers = tracing.headers() if tracing is not None else None
            config, query = hook.body.get("clientConfig") or {}, f"timeout={seconds}s"
            try:
                return await self._hooks.post(config, body, seconds, headers=headers, query=query)
            except HookError as e:
                raise CallFailed(hook, f"failed to call webhook: {e}" if e.asked else str(e), e.code) from None

    def _span(self, a: Attributes, invocation: Invocation, uid: str, *, mutating: bool) -> Any:
        if self._tracing is None:
            return nullcontext()
        told = {
            "configuration": invocation.hook.configuration,
            "webhook": invocation.hook.name,
            "resource": f"{a.resource.api_version}, Resource={a.resource.plural}",
            "subresource": a.subresource,
            "operation": a.operation,
            "UID": uid,
        }
        return self._tracing.span(f"Call {'mutating' if mutating else 'validating'} webhook", told)
