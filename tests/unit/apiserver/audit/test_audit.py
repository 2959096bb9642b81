"""Audit: what is written down of a request, and how it gets there."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from berg.apiserver.audit import events, setup
from berg.apiserver.audit.backends import Batches, Terms, Truncation
from berg.apiserver.audit.logfile import LogFile
from berg.apiserver.audit.policy import BadPolicy, Policy
from berg.apiserver.audit.recorder import Recorder
from berg.apiserver.config import Config
from berg.apiserver.http.message import User
from berg.machinery.clock import FakeClock
from berg.machinery.status import Obj
from tests.unit.apiserver.served_api import Served

ALL = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "RequestResponse"}]}
VIEWER = User("viewer", groups=("system:authenticated",))


class Kept:
    """A backend that keeps what it is given; `takes` says whether it can."""

    def __init__(self, takes: bool = True) -> None:
        self.events: list[Obj] = []
        self.batches: list[int] = []
        self.takes = takes

    async def process(self, events: Sequence[Obj]) -> bool:
        self.events += events
        self.batches.append(len(events))
        return self.takes

    async def run(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def kept(served: Served) -> Kept:
    backend = Kept()
    _record(served, ALL, backend)
    return backend


def _record(served: Served, policy: Obj, backend: Kept) -> None:
    served.server.chain.audit = Recorder(served.clock, Policy(policy), [backend])


def _config_map(name: str = "a") -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}}


async def test_a_write_is_told_before_and_after(served: Served, kept: Kept) -> None:
    await served.create("/api/v1/namespaces/default/configmaps", _config_map(), audit_id="mine", user_agent="me/1")
    before, after = kept.events
    assert before["stage"] == "RequestReceived"
    assert "requestObject" not in before
    assert "responseStatus" not in before
    assert after["stage"] == "ResponseComplete"
    assert (after["auditID"], after["userAgent"], after["verb"]) == ("mine", "me/1", "create")
    assert after["objectRef"] == {
        "resource": "configmaps",
        "namespace": "default",
        "name": "a",
        "apiVersion": "v1",
    }
    assert after["responseStatus"] == {"metadata": {}, "code": 201}
    assert after["requestObject"]["data"] == {"k": "v"}
    assert after["responseObject"]["metadata"]["uid"]
    assert after["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert list(orjson.loads(events.encoded(after))) == [
        *("kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "sourceIPs", "userAgent"),
        *("objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp"),
        *("stageTimestamp", "annotations"),
    ]


async def test_who_may_not_is_told_without_what_was_sent(served: Served, kept: Kept) -> None:
    code, _ = await served.ask("POST", "/api/v1/namespaces/default/configmaps", _config_map(), user=VIEWER)
    assert code == 403
    event = kept.events[-1]
    assert event["responseStatus"]["code"] == 403
    assert event["responseStatus"]["reason"] == "Forbidden"
    assert event["annotations"] == {
        "authorization.k8s.io/decision": "forbid",
        "authorization.k8s.io/reason": "",
    }
    assert "requestObject" not in event


async def test_who_acts_as_somebody_is_told_with_both(served: Served, kept: Kept) -> None:
    await served.raw("GET", "/api/v1/namespaces", impersonate_user="jane", impersonate_group="dev")
    assert kept.events[-1]["user"]["username"] == "admin"
    assert kept.events[-1]["impersonatedUser"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}


async def test_who_nobody_knows_is_told_once(served: Served, kept: Kept) -> None:
    response = await served.raw("GET", "/api/v1/pods", user=None, authorization="Bearer wrong")
    assert response.status == 401
    (event,) = kept.events
    assert event["stage"] == "ResponseStarted"
    assert event["user"] == {}
    told = {"status": "Failure", "message": "Unauthorized", "reason": "Unauthorized"}
    assert event["responseStatus"] == {"metadata": {}, **told, "code": 401}


async def test_what_is_not_there_is_told(served: Served, kept: Kept) -> None:
    assert (await served.raw("GET", "/nowhere")).status == 404
    assert (await served.raw("GET", "/apis/nothing.example/v1/things")).status == 404
    assert [e["responseStatus"]["code"] for e in kept.events if e["stage"] == "ResponseComplete"] == [404, 404]
    assert {e["stage"] for e in kept.events} == {"RequestReceived", "ResponseComplete"}


async def test_a_watch_is_told_when_it_begins_and_when_it_ends(served: Served, kept: Kept) -> None:
    await served.create("/api/v1/namespaces/default/configmaps", _config_map())
    kept.events.clear()
    await served.watch("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0", 1)
    assert [e["stage"] for e in kept.events] == ["RequestReceived", "ResponseStarted", "ResponseComplete"]


async def test_levels_stages_and_managed_fields(served: Served) -> None:
    backend = Kept()
    rules = [
        {"level": "None", "users": ["viewer"]},
        {"level": "Metadata", "verbs": ["list"], "omitStages": ["RequestReceived"]},
        {"level": "Request", "resources": [{"group": "", "resources": ["secrets"]}]},
        {"level": "RequestResponse", "omitManagedFields": True},
    ]
    _record(served, {**ALL, "rules": rules}, backend)
    await served.raw("GET", "/api/v1/namespaces", user=VIEWER)
    assert backend.events == []
    await served.get("/api/v1/namespaces")
    assert [(e["stage"], "responseObject" in e) for e in backend.events] == [("ResponseComplete", False)]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    await served.create("/api/v1/namespaces/default/secrets", secret)
    assert backend.events[-1]["requestObject"]["metadata"]["name"] == "s"
    assert "responseObject" not in backend.events[-1]
    await served.create("/api/v1/namespaces/default/configmaps", _config_map())
    assert "managedFields" not in backend.events[-1]["responseObject"]["metadata"]
    assert backend.events[-1]["responseObject"]["metadata"]["name"] == "a"


async def test_what_cannot_be_recorded_is_not_done(served: Served) -> None:
    _record(served, ALL, Kept(takes=False))
    code, status = await served.ask("POST", "/api/v1/namespaces/default/configmaps", _config_map())
    assert (code, status["message"]) == (500, "Internal error occurred: failed to store audit event")
    served.server.chain.audit = None
    assert (await served.raw("GET", "/api/v1/namespaces/default/configmaps/a")).status == 404


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({}, "rules[0].level: Required value"),
        (
            {"level": "All"},
            'rules[0].level: Unsupported value: "All": supported values: '
            '"None", "Metadata", "Request", "RequestResponse"',
        ),
        (
            {"level": "None", "nonResourceURLs": ["x*y"], "namespaces": ["a"]},
            "[rules[0].nonResourceURLs[0]: Invalid value: \"x*y\": non-resource URL rules must begin with a '/' "
            "character, rules[0].nonResourceURLs[0]: Invalid value: \"x*y\": non-resource URL wildcards '*' must be "
            'the final character of the rule, rules[0].nonResourceURLs: Invalid value: ["x*y"]: rules cannot apply to '
            "both regular resources and non-resource URLs]",
        ),
        (
            {"level": "None", "resources": [{"group": "", "resourceNames": ["x"]}]},
            'rules[0].resources.resourceNames: Invalid value: ["x"]: using resourceNames requires at least one '
            "resource",
        ),
        (
            {"level": "None", "omitStages": ["Later"]},
            'rules[0].omitStages[0]: Invalid value: "Later": allowed stages are '
            "RequestReceived,ResponseStarted,ResponseComplete,Panic",
        ),
    ],
)
def test_what_a_policy_may_not_say(rule: Obj, why: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        Policy({**ALL, "rules": [rule]})
    assert str(caught.value) == why


def test_a_policy_without_rules_is_none(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({**ALL, "rules": []}))
    with pytest.raises(BadPolicy) as caught:
        Policy.read(str(path))
    assert str(caught.value) == f"loading audit policy file: loaded illegal policy with 0 rules: from file {path}"


# ---- on the way


def _event(name: str = "e", size: int = 0, level: str = "Request") -> Obj:
    found: Obj = {"kind": "Event", "apiVersion": events.VERSION, "level": level, "auditID": name, "stage": "Panic"}
    return {**found, "requestObject": "x" * size} if size else found


TERMS = Terms(buffer_size=4, max_size=3, max_wait_s=30.0, throttle=False, qps=0.0, burst=0, beside=False)


async def test_batches_go_when_they_are_full_or_have_waited() -> None:
    clock, kept = FakeClock(), Kept()
    batches = Batches(kept, TERMS, clock)
    running = asyncio.create_task(batches.run())
    await batches.process([_event(str(i)) for i in range(3)])
    await clock.advance(0)
    assert kept.batches == [3]
    await batches.process([_event("4")])
    await clock.advance(29)
    assert kept.batches == [3]
    await clock.advance(2)
    assert kept.batches == [3, 1]
    running.cancel()


async def test_what_the_buffer_has_no_room_for_is_dropped_and_what_it_has_is_sent_at_the_end() -> None:
    kept = Kept()
    batches = Batches(kept, TERMS, FakeClock())
    assert await batches.process([_event(str(i)) for i in range(6)]) is True
    await batches.close()
    assert [e["auditID"] for e in kept.events] == ["0", "1", "2", "3"]


async def test_batches_are_throttled() -> None:
    clock, kept = FakeClock(), Kept()
    terms = Terms(buffer_size=100, max_size=1, max_wait_s=1.0, throttle=True, qps=2.0, burst=2, beside=False)
    batches = Batches(kept, terms, clock)
    running = asyncio.create_task(batches.run())
    await batches.process([_event(str(i)) for i in range(5)])
    await clock.advance(0)
    assert len(kept.events) == 2
    await clock.advance(0.5)
    assert len(kept.events) == 3
    await clock.advance(1)
    assert len(kept.events) == 5
    running.cancel()


async def test_events_that_are_too_large_lose_what_was_sent() -> None:
    kept = Kept()
    truncation = Truncation(kept, 300, 400)
    await truncation.process([_event("a", 100), _event("b", 500), _event("c" * 400), _event("d", 100)])
    assert [(e["auditID"], "requestObject" in e) for e in kept.events] == [("a", True), ("b", False), ("d", True)]
    assert kept.events[1]["annotations"] == {"audit.k8s.io/truncated": "true"}
    assert kept.batches == [2, 1]


def test_one_line_of_text() -> None:
    event = {
        **_event("id"),
        "user": {"username": "jane", "groups": ["a", "b"]},
        "verb": "get",
        "requestURI": "/x",
        "requestReceivedTimestamp": "2026-11-21T12:00:00.000000Z",
        "responseStatus": {"code": 200},
    }
    assert events.line(event) == (
        '2026-11-21T12:00:00.000000Z AUDIT: id="id" stage="Panic" ip="<unknown>" method="get" user="jane" '
        'groups="\\"a\\",\\"b\\"" as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="/x" '
        'response="200"'
    )


def test_a_log_is_turned_over_thinned_out_and_compressed(tmp_path: Path) -> None:
    times = iter(datetime(2026, 11, 21, 12, tzinfo=UTC) + timedelta(days=i) for i in range(100))
    path = tmp_path / "audit.log"
    file = LogFile(str(path), max_bytes=10, backups=2, age_days=0, compress=True, now=lambda: next(times))
    for i in range(5):
        file.write(f"{i}2345678\n".encode())
        if file._tidying is not None:
            file._tidying.join()
    file.close()
    assert path.read_text() == "42345678\n"
    old = sorted(p.name for p in tmp_path.iterdir() if p != path)
    assert old == ["audit-2026-11-23T12-00-00.000.log.gz", "audit-2026-11-24T12-00-00.000.log.gz"]
    assert gzip.decompress((tmp_path / old[-1]).read_bytes()) == b"32345678\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_old_logs_go_by_age(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = LogFile(str(path), max_bytes=0, backups=0, age_days=2, compress=False)
    for day in (10, 18, 20):
        (tmp_path / f"audit-2026-11-{day}T12-00-00.000.log").write_text("x")
    file.tidy(datetime(2026, 11, 20, 13, tzinfo=UTC))
    file.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit-2026-11-20T12-00-00.000.log", "audit.log"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (
            {"audit_log_mode": "later"},
            'invalid audit log mode later, allowed modes are "batch,blocking,blocking-strict"',
        ),
        ({"audit_log_format": "xml"}, 'invalid audit log format xml, allowed formats are "legacy,json"'),
        ({"audit_log_maxage": -1}, "--audit-log-maxage -1 can't be a negative number"),
        (
            {"audit_log_mode": "batch", "audit_log_batch_buffer_size": 0},
            "invalid audit batch log buffer size 0, must be a positive number",
        ),
        (
            {"audit_log_truncate_enabled": True, "audit_log_truncate_max_batch_size": 5},
            "invalid audit truncate log max batch size 5, must be greater than max event size (102400)",
        ),
    ],
)
def test_what_the_flags_may_not_say(tmp_path: Path, flags: dict[str, Any], why: str) -> None:
    with pytest.raises(setup.BadAuditOption) as caught:
        setup.backends(Config(audit_log_path=str(tmp_path / "a.log"), **flags))
    assert str(caught.value) == why


async def test_a_log_of_a_server(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    (log,) = setup.backends(Config(audit_log_path=str(path)))
    served.server.chain.audit = Recorder(served.clock, Policy(ALL), [log])
    await served.get("/api/v1/namespaces/default")
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [e["stage"] for e in lines] == ["RequestReceived", "ResponseComplete"]
    assert lines[1]["responseObject"]["kind"] == "Namespace"
    await log.close()
    served.server.chain.audit = None
