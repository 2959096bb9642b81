"""How often a configuration file was read again, and with what success: upstream's metrics about it.

Source: k8s.io/apiserver pkg/server/options/{authentication,authorization,encryption}config/metrics.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Gauges = dict[str, tuple[str, str, Callable[[], Iterator[tuple[str, float]]]]]


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

    def gauges(self) -> Gauges:
        """For `Metrics.gauges`."""
        prefix, about = f"apiserver_{self._what}_config_controller", f"{self._what} configuration"

        def by_status(values: dict[str, float] | dict[str, int]) -> Callable[[], Iterator[tuple[str, float]]]:
            return lambda: ((f'{{apiserver_id_hash="{self._server}",status="{s}"}}', v) for s, v in values.items())

        def info() -> Iterator[tuple[str, float]]:
            yield f'{{apiserver_id_hash="{self._server}",hash="{self._hash}"}}', 1

        return {
            f"{prefix}_automatic_reloads_total": ("counter", f"Reloads of the {about}.", by_status(self._counts)),
            f"{prefix}_automatic_reload_last_timestamp_seconds": (
                "gauge",
                f"When the {about} was last read again.",
                by_status(self._last),
            ),
            f"{prefix}_last_config_info": ("gauge", f"Which {about} is in force.", info),
        }
