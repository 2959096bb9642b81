"""`/healthz`, `/livez`, `/readyz`: named checks, each also alone, any left out with `?exclude=`.

Source: k8s.io/apiserver pkg/server/healthz.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.http.message import Request, Response

Check = Callable[[], str | None]
"""None when all is well, else why not"""


class Health:
    def __init__(self) -> None:
        self.checks: dict[str, dict[str, Check]] = {"/healthz": {}, "/livez": {}, "/readyz": {}}

    def add(self, name: str, check: Check, *, paths: tuple[str, ...] = ("/healthz", "/livez", "/readyz")) -> None:
        for path in paths:
            self.checks[path][name] = check

    def failing(self, path: str = "/readyz") -> list[str]:
        return [name for name, check in self.checks[path].items() if check() is not None]

    def handle(self, request: Request) -> Response | None:
        for path, checks in self.checks.items():
            if request.path == path or request.path == path + "/":
                return _all(request, path.strip("/"), checks)
            if request.path.startswith(path + "/"):
                check = checks.get(request.path[len(path) + 1 :])
                if check is None:
                    return None
                why = check()
                if why is None:
                    return _text(200, "ok")
                return _text(500, f"internal server error: {why}\n")
        return None


def _all(request: Request, name: str, checks: dict[str, Check]) -> Response:
    excluded = set(request.query.get("exclude", ())) if request.raw_query else set()
    lines, failed = [], False
    for check_name, check in checks.items():
        if check_name in excluded:
            excluded.discard(check_name)
            lines.append(f"[+]{check_name} excluded: ok\n")
        elif check() is None:
            lines.append(f"[+]{check_name} ok\n")
        else:
            lines.append(f"[-]{check_name} failed: reason withheld\n")
            failed = True
    if excluded:
        shown = ", ".join(f'"{e}"' for e in sorted(excluded))
        lines.append(f"warn: some health checks cannot be excluded: no matches for {shown}\n")
    if failed:
        return _text(500, "".join(lines) + f"{name} check failed\n")
    if request.raw_query and "verbose" in request.query:
        return _text(200, "".join(lines) + f"{name} check passed\n")
    return _text(200, "ok")


def _text(code: int, text: str) -> Response:
    return Response(code, text.encode(), "text/plain; charset=utf-8", {"X-Content-Type-Options": "nosniff"})
