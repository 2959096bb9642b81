"""`berg apiserver`: the API server alone, with upstream's flag names."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import signal
from pathlib import Path
from typing import Any

import click

from berg.apiserver.config import Config

_CSV = {
    "etcd_servers",
    "authorization_mode",
    "requestheader_allowed_names",
    "requestheader_username_headers",
    "requestheader_group_headers",
    "requestheader_extra_headers_prefix",
    "api_audiences",
    "kubelet_preferred_address_types",
    "service_cluster_ip_range",
    "enable_admission_plugins",
    "disable_admission_plugins",
}
_REPEATED = {"service_account_key_file", "service_account_issuer"}
_MAPS = {"runtime_config", "feature_gates"}
_DURATIONS = {
    "service_account_max_token_expiration_s": "service-account-max-token-expiration",
    "request_timeout_s": "request-timeout",
    "event_ttl_s": "event-ttl",
    "shutdown_delay_duration_s": "shutdown-delay-duration",
}
_HIDDEN = {"clock", "store"}
_NAMES = {"min_request_timeout_s": "min-request-timeout"}


def seconds(text: str) -> float:
    """`1h30m`, `15s`, or plain seconds."""
    import re

    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s))+", text):
        raise click.BadParameter(f'"{text}" is no duration')
    return sum(float(n) * units[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)(h|ms|m|s)", text))


def _options() -> list[click.Parameter]:
    found: list[click.Parameter] = []
    for field in dataclasses.fields(Config):
        if field.name in _HIDDEN:
            continue
        flag = _DURATIONS.get(field.name) or _NAMES.get(field.name) or field.name.replace("_", "-")
        if field.name in _REPEATED:
            found.append(click.Option([f"--{flag}", field.name], multiple=True))
        elif field.type == "bool":
            found.append(click.Option([f"--{flag}", field.name], type=click.BOOL, default=None, metavar="true|false"))
        elif field.name in ("secure_port", "min_request_timeout_s") or (
            field.type == "int" and field.name not in _DURATIONS
        ):
            found.append(click.Option([f"--{flag}", field.name], type=int, default=None))
        else:
            found.append(click.Option([f"--{flag}", field.name], type=str, default=None))
    found.append(click.Option(["-v", "--v", "verbosity"], type=int, default=0, help="Log more."))
    return found


def _value(name: str, given: Any) -> Any:
    if name in _CSV:
        return [part for part in given.split(",") if part]
    if name in _REPEATED:
        return list(given)
    if name in _MAPS:
        pairs = dict(part.partition("=")[::2] for part in given.split(",") if part)
        if name == "feature_gates":
            return {k: v.lower() == "true" for k, v in pairs.items()}
        return pairs
    if name in _DURATIONS:
        length = seconds(given)
        return int(length) if name in ("service_account_max_token_expiration_s", "event_ttl_s") else length
    if name == "service_node_port_range":
        low, _, high = given.partition("-")
        return int(low), int(high)
    return given


def run(**given: Any) -> None:
    import uvloop

    verbosity = given.pop("verbosity")
    logging.basicConfig(
        level=logging.DEBUG if verbosity >= 4 else logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    values = {name: _value(name, v) for name, v in given.items() if v not in (None, ())}
    config = Config(**values)
    if not config.data_dir and not config.etcd_servers:
        config.data_dir = "/var/lib/berg/apiserver"
    uvloop.run(_serve(config))


async def _serve(config: Config) -> None:
    from berg.apiserver.server import APIServer

    server = APIServer(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start()
    except (OSError, ValueError) as e:
        await server.stop()
        raise click.ClickException(_explained(e, config)) from None
    if config.data_dir:
        _write_kubeconfig(Path(config.data_dir), server.port)
    await stop.wait()
    await server.stop()


def _explained(e: Exception, config: Config) -> str:
    """What is wrong, for who typed the command."""
    if (
        isinstance(e, OSError)
        and e.filename is None
        and e.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
    ):
        return f"cannot listen on {config.bind_address}:{config.secure_port}: {e.strerror or e}"
    return str(e)


def _write_kubeconfig(data_dir: Path, port: int) -> None:
    """For who came in with certificates that this server made itself."""
    from berg.lifecycle.kubeconfig import client_config, write_config
    from berg.machinery.pki import KeyPair

    directory = data_dir / "pki"
    if (directory / "admin.crt").exists():
        pair = KeyPair.read(directory, "admin")
        authority = (directory / "ca.crt").read_bytes()
        write_config(data_dir / "admin.kubeconfig", client_config("berg", f"https://127.0.0.1:{port}", authority, pair))


command = click.Command(
    "apiserver",
    params=_options(),
    callback=run,
    help="Run the API server alone. Without certificates it makes its own under --data-dir.",
)
