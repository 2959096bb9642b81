"""The way of a request, to be read from top to bottom.

    panics become 500  →  what is it about  →  who asks  →  audit  →  as whom  →  may it start now (flow control)
    →  may they (authorization)  →  another server's group, a resource, or one of the other paths

Every refusal on the way is an ApiError and leaves as a Status in the encoding that the client accepts.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from berg.apiserver import requestinfo
from berg.apiserver.auth import authorization
from berg.apiserver.auth.attempts import Attempts
from berg.apiserver.auth.authentication import Authentication
from berg.apiserver.auth.authorization import MASTERS, Authorizer, Verdict
from berg.apiserver.deadlines import Deadlines, too_late
from berg.apiserver.http.message import FLOW, Request, Response, User
from berg.apiserver.metrics import TERMINATED, UNCOUNTED
from berg.apiserver.registry import negotiation
from berg.apiserver.rest import NotServed, Resources, ours
from berg.machinery import duration, status
from berg.machinery.status import ApiError
from berg.storage.etcd.errors import wording
from berg.storage.interface import StoreError

log = logging.getLogger(__name__)

_NOT_ALLOWED = "not allowed"
"""in a request's attributes when its user may not do it"""


class Chain:
    """`paths` answers what is no resource (discovery, health, …)."""

    def __init__(
        self,
        *,
        authentication: Authentication,
        authorizer: Authorizer,
        resources: Resources,
        paths: Callable[[Request], Awaitable[Response | None]],
    ) -> None:
        self.authentication = authentication
        self.authorizer = authorizer
        self.resources = resources
        self.paths = paths
        self.aggregator: Any = None
        self.audit: Any = None
        self.constrained_impersonation = True
        self.attempts = Attempts()
        self.deadlines = Deadlines(resources.services.config.request_timeout_s)
        start = str(uuid.uuid4())
        self._first_ids, self._last_id = start[:-12], int(start[-12:], 16)
        self.flow_control: Any = None
        self.metrics: Any = None
        self.impersonations: Any = None

    async def handle(self, request: Request) -> Response:
        try:
            info = request.info = requestinfo.resolve(request)
        except requestinfo.NoRequestInfo as e:
            return _failed(request, f"failed to create RequestInfo: {e}", {"Audit-Id": self._new_id()})
        metrics = self.metrics
        started = metrics.begin(request) if metrics is not None else 0.0
        task = None if info.long_running else self.deadlines.begin()
        try:
            response = await self._identified(request)
        except asyncio.CancelledError:
            if task is None or not self.deadlines.was_late(task):
                if metrics is not None:
                    metrics.aborted(info)
                raise
            request.attributes[TERMINATED] = True
            response = too_late()
        except ApiError as e:
            response = negotiation.error_response(request, e)
            if _NOT_ALLOWED in request.attributes:
                response.headers["X-Content-Type-Options"] = "nosniff"
        except NotServed:
            request.attributes[UNCOUNTED] = True
            response = nothing_there(request)
        except StoreError as e:
            # upstream knows no better answer than the store's own words: a full disk, a cluster without a leader
            response = negotiation.error_response(request, ApiError(500, "", wording(e)))
        except Exception as e:
            log.exception("%s %s", request.method, request.path)
            response = negotiation.error_response(request, status.internal_error(str(e) or type(e).__name__))
        finally:
            if task is not None:
                self.deadlines.end(task)
        headers = response.headers
        attributes = request.attributes
        if attributes:
            _add_warnings(request, response)
            if (flow := attributes.get(FLOW)) is not None:
                headers["X-Kubernetes-PF-FlowSchema-UID"], headers["X-Kubernetes-PF-PriorityLevel-UID"] = flow
        headers["Audit-Id"] = attributes.get("audit_id") or self._new_id()
        headers.setdefault("Cache-Control", "no-cache, private")
        if metrics is not None:
            metrics.end(request, info, response, started)
        return response

    def _impersonations(self) -> Any:
        """Made, and told of, when somebody first acts as somebody else."""
        if self.impersonations is None:
            from berg.apiserver.auth.impersonation import Figures

            self.impersonations = Figures()
            if self.metrics is not None:
                self.impersonations.describe(self.metrics.registry)
        return self.impersonations

    def _new_id(self) -> str:
        """A UUID nobody else has: a random beginning, then counting."""
        self._last_id = (self._last_id + 1) & 0xFFFFFFFFFFFF
        return f"{self._first_ids}{self._last_id:012x}"

    async def _identified(self, request: Request) -> Response:
        if request.user is None:
            started = perf_counter()
            try:
                user = self.authentication.authenticate(request)
                request.user = user = user if isinstance(user, User) else await user
                self.attempts.known(user, perf_counter() - started)
                if user.notes:
                    request.attributes.setdefault("audit_annotations", {}).update(user.notes)
            except ApiError as e:
                self.attempts.refused(perf_counter() - started)
                request.attributes[UNCOUNTED] = True
                if self.audit is not None:
                    await self.audit.refused(request, e)
                raise
            request.headers.pop("authorization", None)
        if request.raw_query and "timeout=" in request.raw_query and not request.info.long_running:
            seconds = _timeout_s(request.arg("timeout"))
            if 0 < seconds < self.deadlines.seconds:
                try:
                    async with asyncio.timeout(seconds):
                        return await self._audited(request)
                except TimeoutError:
                    request.attributes[TERMINATED] = True
                    return too_late()
        return await self._audited(request)

    async def _audited(self, request: Request) -> Response:
        if self.audit is not None:
            return await self.audit.around(request, self._admitted_by_flow_control)
        return await self._admitted_by_flow_control(request)

    async def _admitted_by_flow_control(self, request: Request) -> Response:
        for header in request.headers:
            if header.startswith("impersonate-"):
                from berg.apiserver.auth import impersonation

                started, constrained = perf_counter(), self.constrained_impersonation
                request.attributes[UNCOUNTED] = True
                request.user = await impersonation.impersonate(
                    request, self.authorizer, constrained=constrained, figures=self._impersonations()
                )
                del request.attributes[UNCOUNTED]
                self.attempts.passed("constrainedimpersonation", perf_counter() - started)
                break
        if self.flow_control is not None:
            return await self.flow_control.around(request, self._authorized)
        return await self._authorized(request)

    async def _authorized(self, request: Request) -> Response:
        user, info = request.user, request.info
        assert user is not None
        started = perf_counter()
        if MASTERS not in user.groups:
            asked = authorization.attributes_of(user, info, *_selectors(request))
            verdict = self.authorizer.authorize(asked)
            if not isinstance(verdict, Verdict):
                verdict = await verdict
            if self.audit is not None:
                _note(request, verdict)
            if not verdict.allowed:
                self.attempts.not_allowed(verdict, perf_counter() - started)
                request.attributes[UNCOUNTED] = True
                if verdict.error:
                    return _failed(request, verdict.error, {})
                request.attributes[_NOT_ALLOWED] = True
                raise authorization.forbidden(asked, verdict.reason)
        elif self.audit is not None:
            _note(request, authorization.ALLOWED)
        self.attempts.allowed(perf_counter() - started)
        return await self._dispatched(request)

    async def _dispatched(self, request: Request) -> Response:
        aggregator = self.aggregator
        if aggregator is not None:
            remote = aggregator.remote_of(request)
            if remote is not None:
                request.attributes[UNCOUNTED] = True
                return await aggregator.handle(request, remote)
        if request.info.is_resource:
            try:
                return await self.resources.handle(request)
            except NotServed:
                pass
        else:
            answered = await self.paths(request)
            if answered is not None:
                return answered
        raise NotServed


def _note(request: Request, verdict: Verdict) -> None:
    """What the audit log says of it."""
    notes = request.attributes.setdefault("audit_annotations", {})
    if verdict.allowed or not verdict.error:
        notes["authorization.k8s.io/decision"] = "allow" if verdict.allowed else "forbid"
        notes["authorization.k8s.io/reason"] = verdict.reason
    else:
        notes["authorization.k8s.io/reason"] = "internal error"


def _failed(request: Request, why: str, headers: dict[str, str]) -> Response:
    """A failure of the server before anything was asked of it: no Status, a line of text."""
    uri = request.path + (f"?{request.raw_query}" if request.raw_query else "")
    text = f'Internal Server Error: "{uri}": {why}\n'
    return Response(500, text.encode(), "text/plain; charset=utf-8", {**headers, "X-Content-Type-Options": "nosniff"})


def _timeout_s(text: str) -> float:
    """0: none is given."""
    try:
        return duration.parse(text) / 1e9 if text else 0.0
    except ValueError as e:
        raise status.bad_request(f"invalid timeout specified in the request URL - {e}") from None


def _selectors(request: Request) -> tuple[str, str]:
    if request.raw_query and request.info.verb in ("list", "watch", "deletecollection"):
        return request.arg("fieldSelector"), request.arg("labelSelector")
    return "", ""


def _add_warnings(request: Request, response: Response) -> None:
    if texts := request.attributes.get("warnings"):
        from berg.apiserver import warnings

        if said := warnings.header(texts):
            response.headers["Warning"] = said


def nothing_there(request: Request) -> Response:
    """Below a group of our own the router answers, with a Status; elsewhere nobody does, with a page."""
    if ours(request.path):
        return negotiation.error_response(request, status.no_such_path())
    return Response(
        404,
        b"404 page not found\n",
        "text/plain; charset=utf-8",
        {"X-Content-Type-Options": "nosniff"},
    )
