"""Which flow schema a request falls under, and its way through that schema's priority level.

Schemas are looked through in the order of their precedence; what was found is kept until one of them changes.
Requests that run for long (watches, logs, streams) hold no seat. Of each schema its status says whether its
priority level is there (Dangling).

A level whose seats are taken may borrow from others (`borrowing`); what comes beyond that waits in its queues, and what
finds these full is answered 429 with when to come again.

Source: k8s.io/apiserver pkg/util/flowcontrol, pkg/server/filters/priority-and-fairness.go.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic, perf_counter
from typing import Any

from berg.apiserver.flowcontrol import borrowing
from berg.apiserver.flowcontrol.borrowing import Ask
from berg.apiserver.flowcontrol.figures import Figures, LevelFigures, describe
from berg.apiserver.flowcontrol.level import Level, Rejected
from berg.apiserver.flowcontrol.turns import Turns
from berg.apiserver.http.message import FLOW, Request, Response, User
from berg.apiserver.metrics import TERMINATED, WAITED_S
from berg.apiserver.registry.modify import modify
from berg.apiserver.registry.services import Services
from berg.apiserver.requestinfo import RequestInfo
from berg.apiserver.traffic import MUTATING, WAITING_READ, WAITING_WRITE, Traffic
from berg.machinery import meta, status
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)

_GROUP = "flowcontrol.apiserver.k8s.io"
_WIDE = frozenset(("list", "watch"))
MAX_SEATS = 10
OBJECTS_PER_SEAT = 100.0


Next = Callable[[Request], Awaitable[Response]]


class FlowControl:
    def __init__(self, services: Services, traffic: Traffic) -> None:
        self._services = services
        self._schemas_of = resource(f"flowschemas.{_GROUP}")
        self._levels_of = resource(f"prioritylevelconfigurations.{_GROUP}")
        self.levels: dict[str, Level] = {}
        self._schemas: list[Obj] = []
        self._found: dict[tuple[Any, ...], tuple[Obj | None, Level | None, Figures]] = {}
        self.figures: dict[tuple[str, str], Figures] = {}
        """(level, schema) → what happened there"""
        self.level_figures: dict[str, LevelFigures] = {}
        self.traffic = traffic
        self.fair = 0.0
        """the part of its target that each level was given when seats were last dealt"""
        self._turns = Turns()
        self._stale = True
        self._news = asyncio.Event()
        self._news.set()
        config = services.config
        self._seats = config.max_requests_inflight + config.max_mutating_requests_inflight
        self._wait_s = config.request_timeout_s / 4
        describe(self, services.metrics)

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        for r in (self._schemas_of, self._levels_of):
            self._services.registry(r).subscribe(self._changed)
        spawn(self._tell())
        spawn(self._deal())

    def _changed(self, _: object) -> None:
        self._stale = True
        self._news.set()

    async def _deal(self) -> None:
        while True:
            await self._services.clock.sleep(borrowing.PERIOD_S)
            self.deal()

    def deal(self) -> None:
        """Seats go where they were asked for."""
        now = monotonic()
        exempt, total, asks, limited = 0, 0, [], []
        for level in self.current():
            self.taken(level, now)
            high = level.demand.close(now)
            total += level.limits.nominal
            if level.exempt:
                level.limit = max(level.limits.least, high)
                exempt += level.limit
            else:
                asks.append(Ask(level.limits, high, level.demand.smoothed))
                limited.append(level)
        for level, ask, seats in zip(limited, asks, borrowing.deal(total, exempt, asks), strict=True):
            level.target = ask.target
            level.resize(seats)
        self.fair = borrowing.fraction(total, [ask.item for ask in asks])

    def taken(self, level: Level, now: float | None = None) -> LevelFigures:
        """What was noted of it is settled by the limits it has."""
        found = self.level_figures.setdefault(level.name, LevelFigures())
        found.take(level, monotonic() if now is None else now)
        return found

    async def _tell(self) -> None:
        registry = self._services.registry(self._schemas_of)
        first = True
        while True:
            await self._news.wait()
            self._news.clear()
            if not first:  # what a cluster starts with is made when the server starts
                await self._keep()
            first = False
            for schema in self._services.list(self._schemas_of):
                condition = self._dangling(schema)
                if _is_told(schema, condition):
                    continue
                try:
                    await modify(registry, "", schema["metadata"]["name"], partial(self._write, condition))
                except ApiError as e:
                    log.warning("status of flow schema %s: %s", schema["metadata"]["name"], e.message)

    async def _keep(self) -> None:
        from berg.apiserver.flowcontrol import bootstrap

        try:
            await bootstrap.keep(self._services)
        except ApiError as e:
            log.warning("mandatory and suggested flow control objects: %s", e.message)

    def _dangling(self, schema: Obj) -> Obj:
        name = schema["spec"]["priorityLevelConfiguration"]["name"]
        missing = self._services.get(self._levels_of, "", name) is None
        found = "but there is no such object" if missing else "and it exists"
        return {
            "type": "Dangling",
            "status": "True" if missing else "False",
            "reason": "NotFound" if missing else "Found",
            "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{name}" {found}',
        }

    def _write(self, condition: Obj, schema: Obj) -> None:
        now = self._services.clock.now()
        meta.set_condition(schema.setdefault("status", {}).setdefault("conditions", []), condition, now)

    async def around(self, request: Request, next_: Next) -> Response:
        """Raises TooManyRequests."""
        info: RequestInfo = request.info
        if info.long_running and info.verb != "watch":
            return await next_(request)
        if self._stale:
            self._compile()
        user = request.user
        assert user is not None
        schema, level, figures = self._classify(user, info)
        if level is None or schema is None:
            return await next_(request)
        width = self._width(request, info, level) if info.verb in _WIDE else 1
        if level.free(width):
            started = level.start(width)
        else:
            await self._wait(request, level, figures, _flow(schema, user, info), width)
            started = monotonic()
        if info.verb in MUTATING:
            figures.watched.observe(self._watchers(info))
        figures.executing += 1
        figures.seats += width
        figures.dispatched += 1
        try:
            if width > 1:
                figures.widths[width] = figures.widths.get(width, 0) + 1
                await self._turns.take()
            response = await next_(request)
        except Exception:
            request.attributes[FLOW] = (schema["metadata"].get("uid", ""), level.uid)
            raise
        finally:
            figures.executing -= 1
            figures.seats -= width
            if width > 1:  # its answer is yet to be written, which is done before the loop's next turn
                asyncio.get_running_loop().call_soon(level.finish, width)
                now = monotonic()
            else:
                now = level.finish(width)
            (figures.began if info.verb == "watch" else figures.took).observe(now - started)
        response.headers["X-Kubernetes-PF-FlowSchema-UID"] = schema["metadata"].get("uid", "")
        response.headers["X-Kubernetes-PF-PriorityLevel-UID"] = level.uid
        return response

    async def _wait(self, request: Request, level: Level, figures: Figures, flow: str, width: int) -> None:
        """Raises TooManyRequests."""
        started, cell = perf_counter(), figures.gave_up
        waiting = WAITING_WRITE if request.info.verb in MUTATING else WAITING_READ
        figures.waiting += 1
        figures.asked += width
        self.traffic.change(waiting, started)
        try:
            await level.wait(flow, width, self._wait_s, figures.lengths.observe)
            cell = figures.waited
        except Rejected as e:
            figures.rejected[e.reason] = figures.rejected.get(e.reason, 0) + 1
            request.attributes[TERMINATED] = True
            raise status.too_many_requests("too many requests, please try again later.", 1) from None
        finally:
            now = perf_counter()
            figures.waiting -= 1
            figures.asked -= width
            self.traffic.change(-waiting, now)
            cell.observe(now - started)
            request.attributes[WAITED_S] = now - started

    def _watchers(self, info: RequestInfo) -> int:
        """Who will be told of this write."""
        registry = self._services.registries.get((info.api_group, info.resource))
        return registry.cacher.interested(info.namespace, info.name) if registry and registry.cacher else 0

    def _width(self, request: Request, info: RequestInfo, level: Level) -> int:
        """A list takes seats by how much it goes through; a watch, where it begins with a list."""
        registry = self._services.registries.get((info.api_group, info.resource))
        if info.name or registry is None or registry.cacher is None:
            return 1
        if info.verb == "watch" and not _begins_with_list(request.query):
            return 1
        return min(MAX_SEATS, level.max_seats, max(1, math.ceil(len(registry.cacher) / OBJECTS_PER_SEAT)))

    # ---- which schema

    def _compile(self) -> None:
        self._stale = False
        self._found.clear()
        self._schemas = sorted(
            self._services.list(self._schemas_of),
            key=lambda s: (s["spec"].get("matchingPrecedence", 1000), s["metadata"]["name"]),
        )
        objs = self._services.list(self._levels_of)
        total = sum(map(_shares, objs))
        for obj in objs:
            name, part = obj["metadata"]["name"], _part(obj)
            level = self.levels.setdefault(name, Level(name))
            self.taken(level)
            lendable, borrowing_ = part.get("lendablePercent") or 0, part.get("borrowingLimitPercent")
            level.configure(obj, borrowing.limits(_shares(obj), total, self._seats, lendable, borrowing_))
        for name in set(self.levels) - {o["metadata"]["name"] for o in objs}:
            if not self.levels[name].waiting:
                del self.levels[name]

    def _classify(self, user: User, info: RequestInfo) -> tuple[Obj | None, Level | None, Figures]:
        key = (user.name, user.groups, info.verb, info.api_group, info.resource, info.subresource, info.namespace)
        if not info.is_resource:
            key = (*key, info.path)  # type: ignore[assignment]
        found = self._found.get(key)
        if found is None:
            schema = next((s for s in self._schemas if matches(s, user, info)), None)
            level = self.levels.get(schema["spec"]["priorityLevelConfiguration"]["name"]) if schema else None
            if len(self._found) > 10_000:
                self._found.clear()
            name = schema["metadata"]["name"] if schema else ""
            pair = (level.name if level else "", name)
            found = self._found[key] = (schema, level, self.figures.setdefault(pair, Figures(name)))
        return found

    # ---- telling

    def current(self) -> Iterable[Level]:
        if self._stale:
            self._compile()
        return self.levels.values()

    def debug(self) -> dict[str, Callable[[Request], Response]]:
        from berg.apiserver.flowcontrol import dump

        return dump.answers(self)


def _is_told(schema: Obj, condition: Obj) -> bool:
    conditions = (schema.get("status") or {}).get("conditions") or ()
    return any(condition.items() <= c.items() for c in conditions)


def _begins_with_list(query: Mapping[str, Sequence[str]]) -> bool:
    initial, version = query.get("sendInitialEvents"), query.get("resourceVersion")
    return bool(initial and initial[0] in ("true", "1")) or not version or version[0] in ("", "0")


def _part(level: Obj) -> Obj:
    spec = level.get("spec") or {}
    return spec.get("limited") or spec.get("exempt") or {}


def _shares(level: Obj) -> int:
    spec = level.get("spec") or {}
    value = _part(level).get("nominalConcurrencyShares")
    return 30 if value is None and spec.get("type") == "Limited" else int(value or 0)


def _flow(schema: Obj, user: User, info: RequestInfo) -> str:
    method = (schema["spec"].get("distinguisherMethod") or {}).get("type")
    name = schema["metadata"]["name"]
    if method == "ByUser":
        return f"{name}/{user.name}"
    return f"{name}/{info.namespace}" if method == "ByNamespace" else str(name)


def matches(schema: Obj, user: User, info: RequestInfo) -> bool:
    return any(
        any(_subject(s, user) for s in rule.get("subjects") or ()) and _rule(rule, info)
        for rule in schema["spec"].get("rules") or ()
    )


def _subject(subject: Obj, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            return subject["user"]["name"] in ("*", user.name)
        case "Group":
            name = subject["group"]["name"]
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject["serviceAccount"]
            prefix = f"system:serviceaccount:{account['namespace']}:"
            if not user.name.startswith(prefix):
                return False
            return account["name"] in ("*", user.name[len(prefix) :])
    return False


def _rule(rule: Obj, info: RequestInfo) -> bool:
    if not info.is_resource:
        return any(_in(r.get("verbs"), info.verb) and _path(r, info.path) for r in rule.get("nonResourceRules") or ())
    return any(_resource(r, info) for r in rule.get("resourceRules") or ())


def _resource(rule: Obj, info: RequestInfo) -> bool:
    named = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _in(rule.get("verbs"), info.verb)
        and _in(rule.get("apiGroups"), info.api_group)
        and _in(rule.get("resources"), named)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _in(rule.get("namespaces"), info.namespace)


def _in(values: list[str] | None, value: str) -> bool:
    return values is not None and ("*" in values or value in values)


def _path(rule: Obj, path: str) -> bool:
    return any(
        u in ("*", path) or (u.endswith("*") and path.startswith(u[:-1])) for u in rule.get("nonResourceURLs") or ()
    )
