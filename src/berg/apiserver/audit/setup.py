"""The audit backends that the configuration asks for.

Source: k8s.io/apiserver pkg/server/options/audit.go.
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.audit.backends import FORMATS, MODES, Backend, Batches, Forgiving, Log, Terms, Truncation, Webhook
from berg.apiserver.audit.events import VERSION
from berg.apiserver.audit.logfile import LogFile
from berg.apiserver.config import Config


class BadAuditOption(ValueError):
    """An `--audit-*` flag that cannot be followed."""


def backends(config: Config) -> list[Backend]:
    """Raises BadAuditOption, BadKubeconfig, OSError."""
    found: list[Backend] = []
    if config.audit_log_path:
        found.append(_decorated(config, "log", _log(config), beside=False))
    if config.audit_webhook_config_file:
        from berg.apiserver.http import remote

        webhook = Webhook(
            remote.read(config.audit_webhook_config_file), config.clock, config.audit_webhook_initial_backoff_s
        )
        found.append(_decorated(config, "webhook", webhook, beside=True))
    return found


def _log(config: Config) -> Log:
    if config.audit_log_format not in FORMATS:
        known = ",".join(FORMATS)
        raise BadAuditOption(f'invalid audit log format {config.audit_log_format}, allowed formats are "{known}"')
    for name in ("maxage", "maxbackup", "maxsize"):
        value = getattr(config, f"audit_log_{name}")
        if value < 0:
            raise BadAuditOption(f"--audit-log-{name} {value} can't be a negative number")
    if config.audit_log_path == "-":
        return Log.standard_output(config.audit_log_format)
    file = LogFile(
        config.audit_log_path,
        max_bytes=config.audit_log_maxsize << 20,
        backups=config.audit_log_maxbackup,
        age_days=config.audit_log_maxage,
        compress=config.audit_log_compress,
        now=config.clock.now,
    )
    return Log.file(file, config.audit_log_format)


def _decorated(config: Config, name: str, backend: Backend, *, beside: bool) -> Backend:
    """As upstream wraps each: its mode inside, the size of events outside."""

    def option(which: str) -> Any:
        return getattr(config, f"audit_{name}_{which}")

    mode = option("mode")
    if mode not in MODES:
        raise BadAuditOption(f'invalid audit {name} mode {mode}, allowed modes are "{",".join(MODES)}"')
    if option("version") != VERSION:
        raise BadAuditOption(f'invalid group version, allowed versions are ["{VERSION}"]')
    if mode == "batch":
        terms = Terms(
            option("batch_buffer_size"),
            option("batch_max_size"),
            option("batch_max_wait_s"),
            option("batch_throttle_enable"),
            option("batch_throttle_qps"),
            option("batch_throttle_burst"),
            beside,
        )
        _check(name, terms)
        backend = Batches(backend, terms, config.clock)
    elif mode == "blocking":
        backend = Forgiving(backend)
    if option("truncate_enabled"):
        event, batch = option("truncate_max_event_size"), option("truncate_max_batch_size")
        if event <= 0:
            told = f"invalid audit truncate {name} max event size {event}, must be a positive number"
            raise BadAuditOption(told)
        if batch < event:
            told = (
                f"invalid audit truncate {name} max batch size {batch}, must be greater than max event size ({event})"
            )
            raise BadAuditOption(told)
        backend = Truncation(backend, event, batch)
    return backend


def _check(name: str, terms: Terms) -> None:
    numbers: list[tuple[str, float]] = [("buffer size", terms.buffer_size), ("max batch size", terms.max_size)]
    if terms.throttle:
        numbers += [("throttle QPS", terms.qps), ("throttle burst", terms.burst)]
    for what, value in numbers:
        if value <= 0:
            raise BadAuditOption(f"invalid audit batch {name} {what} {value:g}, must be a positive number")
