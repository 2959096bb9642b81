"""Recording: one event per request and stage, as the policy wants it.

Source: k8s.io/apiserver pkg/audit, pkg/endpoints/filters/{audit,authn_audit}.go.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from berg.apiserver.audit import backends, events
from berg.apiserver.audit.backends import Backend
from berg.apiserver.audit.policy import METADATA, NONE, REQUEST_RESPONSE, Policy, Verdict
from berg.apiserver.http.message import Request, Response
from berg.apiserver.rest import NotServed
from berg.machinery.clock import Clock, rfc3339_micro
from berg.machinery.metrics import Registry, Samples
from berg.machinery.status import ApiError, Obj, internal_error

log = logging.getLogger(__name__)

Next = Callable[[Request], Awaitable[Response]]
_ALLOWED = "authorization.k8s.io/decision"
_DETAILED = "patch.webhook.admission.k8s.io/"
"""annotations that tell what is in a request"""


class Recorder:
    def __init__(self, clock: Clock, policy: Policy, to: Sequence[Backend]) -> None:
        self._clock = clock
        self._policy = policy
        self._backends = to
        self.recorded = 0
        self.rejected = 0
        self.levels: Counter[str] = Counter()

    async def around(self, request: Request, next_: Next) -> Response:
        """Raises what `next_` raises; an event that must be kept and cannot is a 500."""
        verdict = self._policy.verdict(request.user, request.info)
        self.levels[verdict.level] += 1
        identity = self._identity(request)
        if verdict.level == NONE:
            return await next_(request)
        event = events.begin(request, request.user, verdict, identity, self._clock.now())
        if not await self._emit(event, "RequestReceived", verdict):
            self.rejected += 1
            raise internal_error("failed to store audit event")
        try:
            response = await next_(request)
        except ApiError as e:
            await self._finish(event, request, verdict, e.code, e.to_status())
            raise
        except NotServed:
            from berg.apiserver.chain import nothing_there

            nothing = nothing_there(request)
            await self._finish(event, request, verdict, nothing.status, _loads(nothing.body))
            raise
        except asyncio.CancelledError:
            early = {"kind": "Status", "apiVersion": "v1", "status": "Success", "message": "Connection closed early"}
            await self._finish(event, request, verdict, 200, early)
            raise
        except Exception as e:
            told = {"status": "Failure", "message": f"APIServer panic'd: {e}", "reason": "InternalError", "code": 500}
            event["responseStatus"] = {"metadata": {}, **told}
            await self._emit(event, "Panic", verdict)
            raise
        if response.stream is not None or response.upgrade is not None:
            return await self._started(event, request, verdict, response)
        await self._finish(event, request, verdict, response.status, _shown(request, response, verdict))
        return response

    async def refused(self, request: Request, error: ApiError) -> None:
        """Nobody could be made out."""
        verdict = self._policy.verdict(None, request.info)
        self.levels[verdict.level] += 1
        identity = self._identity(request)
        if verdict.level == NONE:
            return
        event = events.begin(request, None, verdict, identity, self._clock.now())
        events.with_response(event, error.code, error.to_status(), verdict)
        await self._emit(event, "ResponseStarted", verdict)

    def _identity(self, request: Request) -> str:
        known: str | None = request.attributes.get("audit_id")
        if known is None:
            known = request.attributes["audit_id"] = request.headers.get("audit-id") or str(uuid.uuid4())
        return known

    # ---- stages

    async def _started(self, event: Obj, request: Request, verdict: Verdict, response: Response) -> Response:
        """An answer that takes its time: told of when it begins and when it has ended."""
        events.with_response(event, response.status, None, verdict)
        if request.info.long_running or response.upgrade is not None:
            self._complete(event, request, verdict)
            await self._emit(event, "ResponseStarted", verdict)
        if response.stream is not None:
            response.stream = self._follow(response.stream, event, request, verdict, response.status)
        else:
            assert response.upgrade is not None
            upgrade = response.upgrade

            async def until_closed(stream: Any) -> None:
                try:
                    await upgrade(stream)
                finally:
                    await self._finish(event, request, verdict, response.status, None)

            response.upgrade = until_closed
        return response

    async def _follow(self, stream: Any, event: Obj, request: Request, verdict: Verdict, code: int) -> Any:
        try:
            async for chunk in stream:
                yield chunk
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
            await self._finish(event, request, verdict, code, None)

    async def _finish(self, event: Obj, request: Request, verdict: Verdict, code: int, body: Any) -> None:
        self._complete(event, request, verdict)
        events.with_response(event, code, body, verdict)
        await self._emit(event, "ResponseComplete", verdict)

    def _complete(self, event: Obj, request: Request, verdict: Verdict) -> None:
        """What is known only after the request has come through the chain."""
        if request.attributes.get("impersonator") is not None and request.user is not None:
            event["impersonatedUser"] = request.user.info()
            constraint = request.attributes.get("impersonation_constraint")
            if constraint:
                event["authenticationMetadata"] = {"impersonationConstraint": constraint}
        annotations = request.attributes.get("audit_annotations")
        if annotations:
            event["annotations"] = {
                k: v for k, v in annotations.items() if verdict.level != METADATA or not k.startswith(_DETAILED)
            }
            if annotations.get(_ALLOWED) == "allow":
                events.with_request(event, request, verdict)

    async def _emit(self, event: Obj, stage: str, verdict: Verdict) -> bool:
        if stage in verdict.omitted:
            return True
        shown = {**event, "stage": stage, "stageTimestamp": rfc3339_micro(self._clock.now())}
        self.recorded += 1
        well = True
        for backend in self._backends:
            well = await backend.process([shown]) and well
        return well

    # ---- life

    async def run(self) -> None:
        """Sends what gathers, until cancelled."""
        await asyncio.gather(*(backend.run() for backend in self._backends))

    async def close(self) -> None:
        for backend in self._backends:
            await backend.close()

    def describe(self, registry: Registry) -> None:
        def by(counts: Counter[str]) -> Callable[[], Samples]:
            return lambda: [((name,), count) for name, count in counts.items()]

        prefix = "apiserver_audit"
        registry.total(f"{prefix}_event_total", "[ALPHA] Audit events.", (), lambda: [((), self.recorded)])
        help = "[ALPHA] Audit events lost."
        registry.total(f"{prefix}_error_total", help, ("plugin",), by(backends.errors))
        help = "[ALPHA] Requests by audit level."
        registry.total(f"{prefix}_level_total", help, ("level",), by(self.levels))
        help = "[ALPHA] Requests refused because they could not be recorded."
        registry.total(f"{prefix}_requests_rejected_total", help, (), lambda: [((), self.rejected)])


def _shown(request: Request, response: Response, verdict: Verdict) -> Any:
    """The answer, as far as it is an object."""
    if response.content_type != "application/json" or "Content-Encoding" in response.headers:
        return None
    is_status = b'"kind":"Status"' in response.body[:30]
    if not is_status and (verdict.level != REQUEST_RESPONSE or not request.path.startswith("/api")):
        return None
    return _loads(response.body)


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None
