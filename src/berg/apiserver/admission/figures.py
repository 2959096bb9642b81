"""What is counted of expressions: match conditions of webhooks and policies, and what policies decided.

Source: k8s.io/apiserver pkg/admission/metrics, pkg/admission/plugin/policy/{validating,mutating}/metrics.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.machinery.metrics import Registry

_CONDITION_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25)
_CHECK_SECONDS = (0.0000005, 0.001, 0.01, 0.1, 1.0)

Told = Callable[[float, int], None]
"""told how long some match conditions took, and how many of them failed"""


class ConditionFigures:
    """`kind`: webhook or policy; `step`: admit, validating or validate."""

    def __init__(self, registry: Registry, kind: str, step: str) -> None:
        self._kind, self._step = kind, step
        prefix, labels = "apiserver_admission_match_condition", ("kind", "name", "operation", "type")
        help = "[ALPHA] How long match conditions took."
        self._seconds = registry.histogram(f"{prefix}_evaluation_seconds", help, _CONDITION_SECONDS, labels)
        help = "[ALPHA] Match conditions that failed."
        self._errors = registry.counter(f"{prefix}_evaluation_errors_total", help, labels)
        help = "[ALPHA] Webhooks that were not called as their match conditions say."
        self._exclusions = registry.counter(f"{prefix}_exclusions_total", help, labels)

    def of(self, name: str, operation: str) -> Told:
        labels = (self._kind, name, operation, self._step)

        def told(seconds: float, faults: int) -> None:
            self._seconds.observe(seconds, *labels)
            if faults:
                self._errors.inc(*labels, by=faults)

        return told

    def excluded(self, name: str, operation: str) -> None:
        self._exclusions.inc(self._kind, name, operation, self._step)


class PolicyFigures:
    """Checks of policies, by binding, kind of failure and, where they validate, what was done about it."""

    def __init__(self, registry: Registry, step: str, level: str, actions: tuple[str, ...] = ()) -> None:
        """`step`: validating or mutating; `actions`: ("enforcement_action",) where they have any."""
        prefix, labels = (
            f"apiserver_{step}_admission_policy_check",
            ("policy", "policy_binding", "error_type", *actions),
        )
        self._total = registry.counter(f"{prefix}_total", f"[{level}] Checks of {step} policies.", labels)
        help = f"[{level}] How long expressions of {step} policies took."
        self._seconds = registry.histogram(f"{prefix}_duration_seconds", help, _CHECK_SECONDS, labels)

    def note(self, policy: str, binding: str, fault: str | None, seconds: float, *action: str) -> None:
        labels = (policy, binding, _error_type(fault), *action)
        self._total.inc(*labels)
        self._seconds.observe(seconds, *labels)


def _error_type(fault: str | None) -> str:
    if fault is None:
        return "no_error"
    if fault.startswith("compilation"):
        return "compile_error"
    return "out_of_budget" if fault.startswith("validation failed due to running out of cost") else "invalid_error"
