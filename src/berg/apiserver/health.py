"""`/healthz`, `/livez`, `/readyz`: named checks, each also alone, any left out with `?exclude=`. What they found is
counted, for `/metrics/slis`.

Source: k8s.io/apiserver pkg/server/healthz, KEP-3466.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from berg.apiserver.http.message import Request, Response

Check = Callable[[], str | None]
"""None when all is well, else why not"""


class Health:
    def __init__(self) -> None:
        self.checks: dict[str, dict[str, Check]] = {"/healthz": {}, "/livez": {}, "/readyz": {}}
        self._last: dict[tuple[str, str], int] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._started = time.time()

    def add(self, name: str, check: Check, *, paths: tuple[str, ...] = ("/healthz", "/livez", "/readyz")) -> None:
        for path in paths:
            self.checks[path][name] = check

    def failing(self, path: str = "/readyz") -> list[str]:
        return [name for name, check in self.checks[path].items() if check() is not None]

    def handle(self, request: Request) -> Response | None:
        for path, checks in self.checks.items():
            if request.path == path:
                return self._all(request, path, checks)
            if request.path.startswith(path + "/"):
                check = checks.get(request.path[len(path) + 1 :])
                if check is None:
                    return None
                why = self._ask(path, request.path[len(path) + 1 :], check)
                if why is None:
                    return Response(200, b"ok", "text/plain; charset=utf-8")
                return _text(500, f"internal server error: {why}\n")
        return None

    def _ask(self, path: str, name: str, check: Check) -> str | None:
        why = check()
        kind = path.strip("/")
        self._last[name, kind] = int(why is None)
        key = (name, kind, "success" if why is None else "error")
        self._counts[key] = self._counts.get(key, 0) + 1
        return why

    def slis(self, request: Request) -> Response:
        last = "kubernetes_healthcheck"
        lines = [f"# HELP {last} [STABLE] What a health check found last.\n# TYPE {last} gauge\n"]
        lines += [f'{last}{{name="{n}",type="{t}"}} {v}\n' for (n, t), v in self._last.items()]
        total = "kubernetes_healthchecks_total"
        lines.append(f"# HELP {total} [STABLE] What health checks have found.\n# TYPE {total} counter\n")
        lines += [f'{total}{{name="{n}",status="{s}",type="{t}"}} {v}\n' for (n, t, s), v in self._counts.items()]
        started = "process_start_time_seconds"
        lines.append(f"# HELP {started} When the process started.\n# TYPE {started} gauge\n{started} {self._started}\n")
        return Response(200, "".join(lines).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _all(self, request: Request, path: str, checks: dict[str, Check]) -> Response:
        name = path.strip("/")
        excluded = set(request.query.get("exclude", ())) if request.raw_query else set()
        lines, failed = [], False
        for check_name, check in checks.items():
            if check_name in excluded:
                excluded.discard(check_name)
                lines.append(f"[+]{check_name} excluded: ok\n")
            elif self._ask(path, check_name, check) is None:
                lines.append(f"[+]{check_name} ok\n")
            else:
                lines.append(f"[-]{check_name} failed: reason withheld\n")
                failed = True
        if excluded:
            shown = ",".join(f'"{e}"' for e in sorted(excluded))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {shown}\n")
        if failed:
            return _text(500, "".join(lines) + f"{name} check failed\n")
        if request.raw_query and "verbose" in request.query:
            return _text(200, "".join(lines) + f"{name} check passed\n")
        return _text(200, "ok")


def _text(code: int, text: str) -> Response:
    return Response(code, text.encode(), "text/plain; charset=utf-8", {"X-Content-Type-Options": "nosniff"})
