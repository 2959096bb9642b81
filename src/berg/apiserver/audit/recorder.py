"""Recording: one event per request and stage, written to a log file and sent to a webhook, in batches.

Nothing waits for a record to be written, except that a record that cannot be kept is dropped and counted.

Source: k8s.io/apiserver pkg/audit, pkg/endpoints/filters/audit.go.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson

from berg.apiserver.audit.policy import METADATA, NONE, REQUEST_RESPONSE, Policy, Verdict
from berg.apiserver.http.message import Request, Response, User
from berg.apiserver.registry.services import Services
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery.clock import rfc3339_micro
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

BATCH = 400
BATCH_S = 1.0
MAX_WAITING = 10_000
Next = Callable[[Request], Awaitable[Response]]


class Recorder:
    def __init__(self, services: Services, policy: Policy) -> None:
        self._services = services
        self._policy = policy
        self._waiting: list[Obj] = []
        self.dropped = 0
        self.recorded = 0
        config = services.config
        self._file = _open_log(config) if config.audit_log_path else None
        self._webhook = _read_webhook(config.audit_webhook_config_file) if config.audit_webhook_config_file else None

    async def around(self, request: Request, next_: Next) -> Response:
        user, info = request.user, request.info
        assert user is not None
        verdict = self._policy.verdict(user, info)
        identity = request.headers.get("audit-id") or str(uuid.uuid4())
        request.attributes["audit_id"] = identity
        if verdict.level == NONE:
            return await next_(request)
        event = self._begin(request, user, info, verdict, identity)
        self._emit(event, "RequestReceived", verdict)
        try:
            response = await next_(request)
        except ApiError as e:
            self._finish(event, request, verdict, e.code, e.to_status())
            raise
        except Exception as e:
            event["responseStatus"] = {"metadata": {}, "code": 500, "message": str(e), "reason": "InternalError"}
            self._emit(event, "Panic", verdict)
            raise
        if response.stream is not None or response.upgrade is not None:
            self._emit(
                {**event, "responseStatus": {"metadata": {}, "code": response.status}}, "ResponseStarted", verdict
            )
            if response.stream is None:
                self._finish(event, request, verdict, response.status, None)
            else:
                response.stream = self._follow(response.stream, event, request, verdict, response.status)
            return response
        body = None
        if verdict.level == REQUEST_RESPONSE and response.content_type == "application/json":
            body = None if "Content-Encoding" in response.headers else _loads(response.body)
        self._finish(event, request, verdict, response.status, body)
        return response

    async def _follow(self, stream: Any, event: Obj, request: Request, verdict: Verdict, code: int) -> Any:
        try:
            async for chunk in stream:
                yield chunk
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
            self._finish(event, request, verdict, code, None)

    # ---- events

    def _begin(self, request: Request, user: User, info: RequestInfo, verdict: Verdict, identity: str) -> Obj:
        event: Obj = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level,
            "auditID": identity,
            "stage": "",
            "requestURI": request.path + (f"?{request.raw_query}" if request.raw_query else ""),
            "verb": info.verb,
            "user": _user(user),
            "sourceIPs": [request.remote.rpartition(":")[0]] if request.remote else [],
            "userAgent": request.headers.get("user-agent", ""),
            "requestReceivedTimestamp": rfc3339_micro(self._services.clock.now()),
        }
        impersonator = request.attributes.get("impersonator")
        if impersonator is not None:
            event["user"], event["impersonatedUser"] = _user(impersonator), _user(user)
        if info.is_resource:
            ref = {
                "resource": info.resource,
                "namespace": info.namespace,
                "name": info.name,
                "apiGroup": info.api_group,
                "apiVersion": info.api_version,
                "subresource": info.subresource,
            }
            event["objectRef"] = {k: v for k, v in ref.items() if v}
        if verdict.level not in (METADATA, NONE) and request.body:
            body = _loads(request.body)
            if body is not None:
                event["requestObject"] = _without_managed(body) if verdict.omit_managed_fields else body
        return event

    def _finish(self, event: Obj, request: Request, verdict: Verdict, code: int, body: Any) -> None:
        status: Obj = {"metadata": {}, "code": code}
        if isinstance(body, dict) and body.get("kind") == "Status":
            for field in ("status", "message", "reason", "details"):
                if body.get(field):
                    status[field] = body[field]
        event["responseStatus"] = status
        if verdict.level == REQUEST_RESPONSE and body is not None:
            event["responseObject"] = _without_managed(body) if verdict.omit_managed_fields else body
        annotations = request.attributes.get("audit_annotations")
        if annotations:
            event["annotations"] = dict(annotations)
        self._emit(event, "ResponseComplete", verdict)

    def _emit(self, event: Obj, stage: str, verdict: Verdict) -> None:
        if stage in verdict.omitted:
            return
        shown = {**event, "stage": stage, "stageTimestamp": rfc3339_micro(self._services.clock.now())}
        self.recorded += 1
        if self._file is not None:
            self._file.emit(logging.makeLogRecord({"msg": orjson.dumps(shown, default=str).decode()}))
        if self._webhook is not None:
            if len(self._waiting) >= MAX_WAITING:
                self.dropped += 1
            else:
                self._waiting.append(shown)

    # ---- the webhook

    async def run(self) -> None:
        """Sends what has gathered, until cancelled."""
        from berg.apiserver.http.hooks import HookError, call

        if self._webhook is None:
            return
        while True:
            await self._services.clock.sleep(BATCH_S)
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                body = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch}
                for delay in (0.0, 1.0, 5.0):
                    await asyncio.sleep(delay)
                    try:
                        await call(self._services, self._webhook, orjson.dumps(body, default=str), 30.0)
                        break
                    except HookError as e:
                        if str(e).startswith("couldn't get version"):
                            break  # it took them: the answer need not be JSON
                        log.warning("audit webhook: %s", e)
                else:
                    self.dropped += len(batch)

    def gauges(self) -> dict[str, tuple[str, str, Callable[[], Iterator[tuple[str, float]]]]]:
        def count(read: Callable[[], int]) -> Callable[[], Iterator[tuple[str, float]]]:
            return lambda: iter([("", read())])

        return {
            "apiserver_audit_event_total": ("counter", "Audit events.", count(lambda: self.recorded)),
            "apiserver_audit_requests_rejected_total": ("counter", "Audit events lost.", count(lambda: self.dropped)),
        }


def _open_log(config: Any) -> logging.Handler:
    formatter = logging.Formatter("%(message)s")
    handler: logging.Handler
    if config.audit_log_path == "-":
        handler = logging.StreamHandler(sys.stdout)
    else:
        size = (config.audit_log_maxsize or 100) << 20
        handler = logging.handlers.RotatingFileHandler(
            config.audit_log_path, maxBytes=size, backupCount=config.audit_log_maxbackup or 10
        )
    handler.setFormatter(formatter)
    return handler


def _read_webhook(path: str) -> Obj:
    """The server of a kubeconfig as a webhook's client configuration."""
    import base64
    from pathlib import Path

    from berg.machinery.codec import yaml as yaml_codec

    config = yaml_codec.loads(Path(path).read_bytes())
    cluster = config["clusters"][0]["cluster"]
    ca = cluster.get("certificate-authority-data") or ""
    if cluster.get("certificate-authority"):
        ca = base64.b64encode(Path(cluster["certificate-authority"]).read_bytes()).decode()
    return {"url": cluster["server"], "caBundle": ca}


def _user(user: User) -> Obj:
    shown: Obj = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        shown["uid"] = user.uid
    if user.extra:
        shown["extra"] = {k: list(v) for k, v in user.extra.items()}
    return shown


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _without_managed(obj: Any) -> Any:
    if not isinstance(obj, dict):
        return obj
    meta = obj.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        obj = {**obj, "metadata": {k: v for k, v in meta.items() if k != "managedFields"}}
    if isinstance(obj.get("items"), list):
        obj = {**obj, "items": [_without_managed(i) for i in obj["items"]]}
    return obj
