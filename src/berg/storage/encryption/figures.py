"""What is counted of encryption at rest. Of the process, whichever store the values lie in.

Source: k8s.io/apiserver pkg/storage/value/metrics.go.
"""

from __future__ import annotations

from time import perf_counter

from berg.machinery.metrics import Counter, Histogram, Registry, exponential

_SECONDS = exponential(5e-6, 2, 25)
_KEY_SECONDS = exponential(5e-6, 2, 14)

_DONE = Counter(("resource", "status", "transformation_type", "transformer_prefix"))
_TOOK = Histogram(("transformation_type", "transformer_prefix"), _SECONDS)
_KEYS = Histogram((), _KEY_SECONDS)


def transformed(which: str, key: bytes, prefix: bytes, started: float, *, well: bool) -> None:
    """`which`: to_storage or from_storage."""
    shown = prefix.decode("utf-8", "replace") or "unknown"
    resource = key.split(b"/", 3)[2].decode("utf-8", "replace") if key.count(b"/") > 2 else ""
    _DONE.inc(resource, "OK" if well else "Internal", which, shown)
    if well:
        _TOOK.observe(perf_counter() - started, which, shown)


def made_key(started: float) -> None:
    _KEYS.observe(perf_counter() - started)


def describe(r: Registry) -> None:
    prefix = "apiserver_storage"
    help = "[ALPHA] Values that were encrypted or decrypted."
    r.total(f"{prefix}_transformation_operations_total", help, _DONE.labels, _DONE.values.items)
    help = "[ALPHA] How long it took to encrypt or decrypt a value."
    r.distribution(f"{prefix}_transformation_duration_seconds", help, _SECONDS, _TOOK.labels, _TOOK.cells)
    help = "[ALPHA] How long it took to make a key for data."
    r.distribution(f"{prefix}_data_key_generation_duration_seconds", help, _KEY_SECONDS, (), _KEYS.cells)
