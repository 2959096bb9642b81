"""A client of webhooks that is made at the first call: a server without webhooks does not load what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from berg.apiserver.admission.interface import Api, Attributes
from berg.apiserver.admission.webhook.hooks import Hook, Invocation

if TYPE_CHECKING:
    from berg.apiserver.admission.webhook.client import Client


class Caller:
    def __init__(self, api: Api) -> None:
        self.api = api
        self._client: Client | None = None
        self._tracing: Any = getattr(api, "tracing", None)

    async def ask(self, a: Attributes, invocation: Invocation, uid: str, body: bytes, *, mutating: bool) -> Any:
        """The webhook's answer, decoded. Raises CallFailed."""
        hook, tracing = invocation.hook, self._tracing
        if tracing is None:
            return await self._post(hook, body, {})
        told = {
            "configuration": hook.configuration,
            "webhook": hook.name,
            "resource": f"{a.resource.api_version}, Resource={a.resource.plural}",
            "subresource": a.subresource,
            "operation": a.operation,
            "UID": uid,
        }
        with tracing.span(f"Call {'mutating' if mutating else 'validating'} webhook", told):
            return await self._post(hook, body, tracing.headers())

    async def _post(self, hook: Hook, body: bytes, headers: dict[str, str]) -> Any:
        if self._client is None:
            from berg.apiserver.admission.webhook.client import Client

            self._client = Client(self.api)
        return await self._client.post(hook, body, headers)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
