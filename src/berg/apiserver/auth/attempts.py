"""How many requests were authenticated and authorized, and with what result: two additions for each.

Source: k8s.io/apiserver pkg/endpoints/filters/metrics.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from berg.apiserver.auth.authorization import Decision, Verdict
from berg.apiserver.http.message import User
from berg.apiserver.reloads import Gauges

_SHOWN = frozenset(("admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"))
_RESULTS = {Decision.DENY: "denied", Decision.NO_OPINION: "no-opinion"}


class Attempts:
    __slots__ = ("allowed", "refused", "results", "users")

    def __init__(self) -> None:
        self.users: dict[str, int] = {"other": 0}
        """requests by user, few of whom are told apart"""
        self.refused = 0
        self.allowed = 0
        self.results: dict[str, int] = {}
        """of what was not allowed"""

    def known(self, user: User) -> None:
        name = user.name if user.name in _SHOWN else "other"
        self.users[name] = self.users.get(name, 0) + 1

    def not_allowed(self, verdict: Verdict) -> None:
        result = "error" if verdict.error else _RESULTS[verdict.decision]
        self.results[result] = self.results.get(result, 0) + 1

    def gauges(self) -> Gauges:
        def by(label: str, values: Callable[[], Mapping[str, int]]) -> Callable[[], Iterator[tuple[str, float]]]:
            return lambda: ((f'{{{label}="{k}"}}', v) for k, v in values().items() if v)

        return {
            "authentication_attempts": (
                "counter",
                "[ALPHA] Attempts to authenticate, by result.",
                by("result", lambda: {"success": sum(self.users.values()), "error": self.refused}),
            ),
            "authenticated_user_requests": (
                "counter",
                "[ALPHA] Requests by user.",
                by("username", lambda: self.users),
            ),
            "authorization_attempts_total": (
                "counter",
                "[ALPHA] Attempts to authorize, by result.",
                by("result", lambda: {"allowed": self.allowed, **self.results}),
            ),
        }
