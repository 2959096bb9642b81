"""How many requests were authenticated and authorized, with what result, and how long that took.

Source: k8s.io/apiserver pkg/endpoints/filters/metrics.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from berg.apiserver.auth.authorization import Decision, Verdict
from berg.apiserver.http.message import User
from berg.machinery.metrics import Cell, Labels, Registry, Samples, exponential

_SHOWN = frozenset(("admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"))
_RESULTS = {Decision.DENY: "denied", Decision.NO_OPINION: "no-opinion"}
_SECONDS = exponential(0.001, 2, 15)
_FILTER_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0)
_BOUNDS = tuple(sorted({*_SECONDS, *_FILTER_SECONDS}))


class Attempts:
    __slots__ = ("_allowed", "_known", "_others", "_refused", "_results", "allowed", "refused", "users")

    def __init__(self) -> None:
        self.users: dict[str, int] = {"other": 0}
        """requests by user, few of whom are told apart"""
        self._known = Cell(_BOUNDS)
        self._refused = Cell(_BOUNDS)
        self._allowed = Cell(_BOUNDS)
        self.allowed, self.refused = self._allowed.observe, self._refused.observe
        self._results: dict[str, Cell] = {}
        """of what was not allowed"""
        self._others: dict[str, Cell] = {}
        """how long other stages took"""

    def known(self, user: User, seconds: float) -> None:
        name = user.name if user.name in _SHOWN else "other"
        self.users[name] = self.users.get(name, 0) + 1
        self._known.observe(seconds)

    def not_allowed(self, verdict: Verdict, seconds: float) -> None:
        result = "error" if verdict.error else _RESULTS[verdict.decision]
        self._results.setdefault(result, Cell(_BOUNDS)).observe(seconds)

    def passed(self, stage: str, seconds: float) -> None:
        self._others.setdefault(stage, Cell(_BOUNDS)).observe(seconds)

    def describe(self, r: Registry) -> None:
        def identified() -> Mapping[str, Cell]:
            return {"success": self._known, "error": self._refused}

        def authorized() -> Mapping[str, Cell]:
            return {"allowed": self._allowed, **self._results}

        def counts(read: Callable[[], Mapping[str, Cell]]) -> Callable[[], Samples]:
            return lambda: [((result,), cell.count) for result, cell in read().items() if cell.count]

        def cells(read: Callable[[], Mapping[str, Cell]]) -> Callable[[], Iterable[tuple[Labels, Cell]]]:
            return lambda: [((result,), cell) for result, cell in read().items() if cell.count]

        result = ("result",)
        help = "[ALPHA] Attempts to authenticate, by result."
        r.total("authentication_attempts", help, result, counts(identified))
        help = "[ALPHA] How long it took to authenticate, by result."
        r.distribution("authentication_duration_seconds", help, _SECONDS, result, cells(identified))
        r.total(
            "authenticated_user_requests",
            "[ALPHA] Requests by user.",
            ("username",),
            lambda: [((name,), count) for name, count in self.users.items() if count],
        )
        help = "[ALPHA] Attempts to authorize, by result."
        r.total("authorization_attempts_total", help, result, counts(authorized))
        help = "[ALPHA] How long it took to authorize, by result."
        r.distribution("authorization_duration_seconds", help, _SECONDS, result, cells(authorized))
        help = "[ALPHA] How long stages took that requests go through before they are served."
        r.distribution("apiserver_request_filter_duration_seconds", help, _FILTER_SECONDS, ("filter",), self._stages)

    def _stages(self) -> Iterable[tuple[Labels, Cell]]:
        allowed = self._allowed
        for cell in self._results.values():
            allowed = allowed.plus(cell)
        stages = {"authentication": self._known.plus(self._refused), "authorization": allowed, **self._others}
        return (((name,), cell) for name, cell in stages.items() if cell.count)
