"""What is counted of definitions: their expressions, what is compared to let old faults be, and conversion webhooks.

Compiled rules and comparisons are the process's, whichever server asks; the rest is each server's own.

Source: k8s.io/apiserver pkg/cel/metrics, k8s.io/apiextensions-apiserver pkg/apiserver/{conversion,validation}/metrics.
"""

from __future__ import annotations

from time import perf_counter

from berg.machinery.metrics import Cell, Registry, exponential
from berg.machinery.status import ApiError

_CEL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CALL_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0)
_RATCHET_SECONDS = exponential(0.00001, 4, 10)
_CONVERSION_SECONDS = exponential(0.001, 2, 15)

COMPILED, EVALUATED = Cell(_CEL_SECONDS), Cell(_CEL_SECONDS)
RATCHETED = Cell(_RATCHET_SECONDS)

CALL, MALFORMED, PARTIAL, INVALID = (
    f"conversion_webhook_{what}_failure" for what in ("call", "malformed_response", "partial_response",
                                                      "invalid_converted_object")
)  # fmt: skip


class Failed(ApiError):
    """A conversion webhook was of no use: `kind` is one of the above."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(500, "", why)
        self.kind = kind


class ConversionFigures:
    def __init__(self, r: Registry) -> None:
        prefix, labels = "apiserver_conversion_webhook", ("failure_type", "result")
        help = "[ALPHA] How long conversion webhooks took."
        self._seconds = r.histogram(f"{prefix}_duration_seconds", help, _CALL_SECONDS, labels)
        self._requests = r.counter(f"{prefix}_request_total", "[ALPHA] Requests to conversion webhooks.", labels)
        self._conversions = r.histogram(
            "apiserver_crd_conversion_webhook_duration_seconds",
            "[ALPHA] How long conversions by webhooks took, by definition and versions.",
            _CONVERSION_SECONDS,
            ("crd_name", "from_version", "succeeded", "to_version"),
        )

    def asked(self, crd: str, before: str, after: str, started: float, failure: str = "") -> None:
        seconds = perf_counter() - started
        labels = (failure, "failure" if failure else "success")
        self._seconds.observe(seconds, *labels)
        self._requests.inc(*labels)
        self._conversions.observe(seconds, crd, before, "false" if failure else "true", after)


def describe(r: Registry) -> None:
    for name, help, cell in (
        ("apiserver_cel_compilation_duration_seconds", "[BETA] How long expressions took to compile.", COMPILED),
        ("apiserver_cel_evaluation_duration_seconds", "[BETA] How long expressions took to evaluate.", EVALUATED),
        (
            "apiextensions_apiserver_validation_ratcheting_seconds",
            "[ALPHA] How long it took to tell which faults a write has not made.",
            RATCHETED,
        ),
    ):
        r.distribution(name, help, cell.bounds, (), lambda cell=cell: [((), cell)])  # type: ignore[misc]
