"""How often a configuration file was read again, and with what success: upstream's metrics about it.

Source: k8s.io/apiserver pkg/server/options/{authentication,authorization,encryption}config/metrics.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from berg.machinery.metrics import Registry, Samples


class Reloads:
    """`what`: "authentication", "authorization" or "encryption"; `server`: the API server's identity."""

    def __init__(self, what: str, server: str, path: str, now: Callable[[], float] = time.time) -> None:
        self._what = what
        self._server = f"sha256:{hashlib.sha256(server.encode()).hexdigest()}"
        self._path = path
        self._now = now
        self._counts: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._hash = self._read()

    def done(self, *, well: bool) -> None:
        result = "success" if well else "failure"
        self._counts[result] = self._counts.get(result, 0) + 1
        self._last[result] = self._now()
        if well:
            self._hash = self._read()

    def _read(self) -> str:
        try:
            return f"sha256:{hashlib.sha256(Path(self._path).read_bytes()).hexdigest()}"
        except OSError:
            return ""

    def describe(self, registry: Registry) -> None:
        prefix, about = f"apiserver_{self._what}_config_controller", f"{self._what} configuration"
        level = "[ALPHA]" if self._what == "encryption" else "[BETA]"

        def by_status(values: dict[str, float] | dict[str, int]) -> Callable[[], Samples]:
            return lambda: [((self._server, status), value) for status, value in values.items()]

        labels = ("apiserver_id_hash", "status")
        help = f"{level} Reloads of the {about}."
        registry.total(f"{prefix}_automatic_reloads_total", help, labels, by_status(self._counts))
        help = f"{level} When the {about} was last read again."
        registry.gauge(f"{prefix}_automatic_reload_last_timestamp_seconds", help, labels, by_status(self._last))
        registry.gauge(
            f"{prefix}_last_config_info",
            f"[ALPHA] Which {about} is in force.",
            ("apiserver_id_hash", "hash"),
            lambda: [((self._server, self._hash), 1)],
        )
