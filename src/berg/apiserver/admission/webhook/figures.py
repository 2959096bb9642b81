"""What is counted of admission webhooks: how long each took, what it answered, and what became of its failures.

Source: k8s.io/apiserver pkg/admission/metrics.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import Attributes
from berg.apiserver.admission.webhook.hooks import CallFailed, Hook
from berg.apiserver.metrics import WAITED_S
from berg.machinery.metrics import Registry

_HIGHEST_CODE = 600
"""codes beyond it are counted as it, so that there are never too many"""
_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)


class Figures:
    def __init__(self, registry: Registry, step: str) -> None:
        """`step`: admit or validating."""
        self._step = step
        prefix, labels = "apiserver_admission_webhook", ("name", "operation", "rejected", "type")
        help = "[STABLE] Duration of admission webhooks."
        self._seconds = registry.histogram(f"{prefix}_admission_duration_seconds", help, _SECONDS, labels)
        help = "[ALPHA] Requests to admission webhooks."
        self._requests = registry.counter(f"{prefix}_request_total", help, (*labels, "code"))
        self._rejections = registry.counter(
            f"{prefix}_rejection_count",
            "[ALPHA] Requests that webhooks, or their failures, have refused.",
            ("name", "operation", "type", "error_type", "rejection_code"),
        )
        help = "[ALPHA] Failures of webhooks that were let pass."
        self._open = registry.counter(f"{prefix}_fail_open_count", help, ("name", "type"))

    def answered(self, a: Attributes, hook: Hook, seconds: float) -> None:
        self._note(a, hook, seconds, 200, rejected=False)

    def denied(self, a: Attributes, hook: Hook, seconds: float, code: int) -> None:
        code = min(code, _HIGHEST_CODE)
        self._note(a, hook, seconds, code, rejected=True)
        self._rejections.inc(hook.name, a.operation, self._step, "no_error", str(code))

    def unasked(self, a: Attributes, hook: Hook, seconds: float) -> None:
        """The fault is the server's own."""
        self._note(a, hook, seconds, 0, rejected=True)
        self._rejections.inc(hook.name, a.operation, self._step, "apiserver_internal_error", "0")

    def failed(self, a: Attributes, failed: CallFailed, seconds: float) -> None:
        hook, open_ = failed.hook, failed.hook.ignores_failure
        self._note(a, hook, seconds, failed.code, rejected=not open_)
        if open_:
            self._open.inc(hook.name, self._step)
        else:
            self._rejections.inc(hook.name, a.operation, self._step, "calling_webhook_error", str(failed.code))

    def _note(self, a: Attributes, hook: Hook, seconds: float, code: int, *, rejected: bool) -> None:
        labels = (hook.name, a.operation, "true" if rejected else "false", self._step)
        self._seconds.observe(seconds, *labels)
        self._requests.inc(*labels, str(code))
        # Mutating ones are waited for one after the other, validating ones together, for as long as the slowest takes.
        waited = a.attributes
        if self._step == "admit":
            waited[WAITED_S] = waited.get(WAITED_S, 0.0) + seconds
        else:
            before = waited.get(_SLOWEST_S, 0.0)
            if seconds > before:
                waited[_SLOWEST_S] = seconds
                waited[WAITED_S] = waited.get(WAITED_S, 0.0) + seconds - before


_SLOWEST_S = "slowest_validating_webhook_s"
