"""Audit events: what is written down of a request. No I/O.

Source: k8s.io/apiserver pkg/apis/audit/v1, pkg/audit/{request,format}.go.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from berg.apiserver.audit.policy import REQUEST, REQUEST_RESPONSE, Verdict
from berg.apiserver.http.message import Request, User
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery.clock import rfc3339_micro
from berg.machinery.status import Obj

KIND, VERSION = "Event", "audit.k8s.io/v1"
LONGEST_AGENT = 1024
_ORDER = (
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "authenticationMetadata",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
)


def begin(request: Request, user: User | None, verdict: Verdict, identity: str, now: datetime) -> Obj:
    info: RequestInfo = request.info
    agent = request.headers.get("user-agent", "")
    event: Obj = {
        "kind": KIND,
        "apiVersion": VERSION,
        "level": verdict.level,
        "auditID": identity,
        "stage": "",
        "requestURI": request.path + (f"?{request.raw_query}" if request.raw_query else ""),
        "verb": info.verb,
        "user": user.info() if user is not None else {},
        "sourceIPs": source_ips(request),
        "requestReceivedTimestamp": rfc3339_micro(now),
    }
    if agent:
        event["userAgent"] = agent if len(agent) <= LONGEST_AGENT else f"{agent[:LONGEST_AGENT]}...TRUNCATED"
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
    return event


def source_ips(request: Request) -> list[str]:
    """Those that proxies tell of, then the one that is connected."""
    found = [ip.strip() for ip in request.headers.get("x-forwarded-for", "").split(",") if _is_ip(ip.strip())]
    if not found and _is_ip(request.headers.get("x-real-ip", "")):
        found = [request.headers["x-real-ip"]]
    direct = request.remote.rpartition(":")[0]
    if direct and (not found or found[-1] != direct):
        found.append(direct)
    return found


def _is_ip(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def with_request(event: Obj, request: Request, verdict: Verdict) -> None:
    """What was sent, and what it says of the object."""
    info: RequestInfo = request.info
    if not request.body or not info.is_resource or info.subresource == "proxy":
        return
    body = _decoded(request.body, request.headers.get("content-type", ""))
    if not isinstance(body, dict | list):
        return
    if isinstance(body, dict) and info.verb in ("create", "update"):
        meta = body.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        ref = event.setdefault("objectRef", {})
        for name in ("namespace", "name", "uid", "resourceVersion"):
            if not ref.get(name) and meta.get(name):
                ref[name] = meta[name]
    if verdict.level in (REQUEST, REQUEST_RESPONSE):
        event["requestObject"] = without_managed(body) if verdict.omit_managed_fields else body


def with_response(event: Obj, code: int, body: Any, verdict: Verdict) -> None:
    """`body`: the answer, or the Status that was an error; None when it is not recorded."""
    status: Obj = {"metadata": {}}
    if isinstance(body, dict) and body.get("kind") == "Status" and body.get("apiVersion") == "v1":
        status |= {k: body[k] for k in ("status", "message", "reason", "details") if body.get(k)}
    event["responseStatus"] = {**status, "code": code}
    if verdict.level == REQUEST_RESPONSE and body is not None:
        event["responseObject"] = without_managed(body) if verdict.omit_managed_fields else body


def without_managed(obj: Any) -> Any:
    """A copy of an object, a list of them or a table without managed fields."""
    if not isinstance(obj, dict):
        return obj
    meta = obj.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        obj = {**obj, "metadata": {k: v for k, v in meta.items() if k != "managedFields"}}
    if isinstance(obj.get("items"), list):
        obj = {**obj, "items": [without_managed(i) for i in obj["items"]]}
    if obj.get("kind") == "Table":
        obj = {**obj, "rows": [{**r, "object": without_managed(r.get("object"))} for r in obj.get("rows") or ()]}
    return obj


def encoded(event: Obj) -> bytes:
    """One event as JSON, its fields in upstream's order."""
    return orjson.dumps({k: event[k] for k in _ORDER if k in event}, default=str)


def _decoded(body: bytes, content_type: str) -> Any:
    try:
        if "protobuf" in content_type:
            from berg.machinery.codec import protobuf

            return protobuf.loads(body)
        if "yaml" in content_type:
            from berg.machinery.codec import yaml

            return yaml.loads(body)
        return orjson.loads(body)
    except Exception:  # whatever a client may send: it is refused elsewhere
        return None


# ---- one line of text: `--audit-log-format=legacy`


def line(event: Obj) -> str:
    user, acting = event.get("user") or {}, event.get("impersonatedUser")
    quoted: list[tuple[str, str]] = [
        ("id", event["auditID"]),
        ("stage", event["stage"]),
        ("ip", next(iter(event.get("sourceIPs") or ()), "<unknown>")),
        ("method", event.get("verb", "")),
        ("user", user.get("username") or "<none>"),
        ("groups", _groups(user.get("groups")) if user.get("username") and user.get("groups") else "<none>"),
        ("as", (acting or {}).get("username", "") if acting is not None else "<self>"),
        ("asgroups", _groups(acting["groups"]) if acting and acting.get("groups") is not None else "<lookup>"),
        ("user-agent", event.get("userAgent", "")),
        ("namespace", (event.get("objectRef") or {}).get("namespace") or "<none>"),
        ("uri", event.get("requestURI", "")),
    ]
    told = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in quoted)
    status = event.get("responseStatus")
    response = "<deferred>" if status is None else str(status.get("code", 0))
    return f'{event["requestReceivedTimestamp"]} AUDIT: {told} response="{response}"'


def _groups(groups: Sequence[str] | None) -> str:
    return ",".join(json.dumps(g, ensure_ascii=False) for g in groups or ())
