"""A client of webhooks that is made at the first call: a server without webhooks does not load what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from berg.apiserver.admission.interface import Api
from berg.apiserver.admission.webhook.hooks import Hook

if TYPE_CHECKING:
    from berg.apiserver.admission.webhook.client import Client


class Caller:
    def __init__(self, api: Api) -> None:
        self.api = api
        self._client: Client | None = None

    async def post(self, hook: Hook, body: bytes) -> Any:
        """The webhook's answer, decoded. Raises CallFailed."""
        if self._client is None:
            from berg.apiserver.admission.webhook.client import Client

            self._client = Client(self.api)
        return await self._client.post(hook, body)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
