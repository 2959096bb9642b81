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
from berg.cli import feature_gates, logsetup
from berg.cli.apiserver_flags import ACCEPTED
from berg.machinery import collector

log = logging.getLogger(__name__)

_WHOLE = {"service_account_key_file", "service_account_issuer", "tls_sni_cert_key"}
"""lists whose values have commas of their own, or may have: given once for each value"""
_SECONDS = {"min_request_timeout_s"}
"""plain numbers of seconds; every other field that ends in `_s` is a duration"""
_HIDDEN = {"clock", "store", "component_ports"}


def seconds(text: str) -> float:
    """`1h30m`, `15s`, or plain seconds."""
    import re

    from berg.machinery import duration

    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    try:
        return duration.seconds(text)
    except ValueError:
        raise click.BadParameter(f'"{text}" is no duration') from None


def _kind(field: dataclasses.Field[Any]) -> str:
    """list, dict, bool, int, float, tuple or str, of an annotation that is text."""
    return str(field.type).removesuffix(" | None").partition("[")[0]


def _options() -> list[click.Parameter]:
    found: list[click.Parameter] = []
    for field in dataclasses.fields(Config):
        if field.name in _HIDDEN:
            continue
        flag, kind = f"--{flag_of(field.name)}", _kind(field)
        if field.name == "feature_gates":
            found.append(feature_gates.option())
        elif kind in ("list", "dict"):
            found.append(click.Option([flag, field.name], multiple=True))
        elif kind == "bool":  # upstream takes `--flag` and `--flag=false`
            found.append(
                click.Option([flag, field.name], type=click.BOOL, is_flag=False, flag_value="true", default=None)
            )
        elif kind in ("int", "float") and (not field.name.endswith("_s") or field.name in _SECONDS):
            found.append(click.Option([flag, field.name], type=int if kind == "int" else float, default=None))
        else:
            found.append(click.Option([flag, field.name], type=str, default=None))
    for flag, (switch, why) in ACCEPTED.items():
        more: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if switch else {}
        found.append(click.Option([f"--{flag}", _accepted(flag)], multiple=True, help=why, **more))
    found.append(click.Option(["-v", "--v", "verbosity"], type=int, default=0, help="Log more."))
    found.append(
        click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Tell it.")
    )
    return found


def flag_of(name: str) -> str:
    return name.removesuffix("_s").replace("_", "-")


def _accepted(flag: str) -> str:
    return f"accepted__{flag.replace('-', '_')}"


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from berg.machinery.version import GIT_VERSION

        click.echo(f"Kubernetes {GIT_VERSION}")
        context.exit()


def _value(field: dataclasses.Field[Any], given: Any) -> Any:
    kind = _kind(field)
    if field.name == "feature_gates":
        return given
    if kind == "list":
        return list(given) if field.name in _WHOLE else [p.strip() for one in given for p in one.split(",") if p]
    if kind == "dict":
        parts = given if field.name == "oidc_required_claim" else [p for one in given for p in one.split(",") if p]
        return {k.strip(): v.strip() for k, _, v in (part.partition("=") for part in parts)}
    if field.name.endswith("_s") and field.name not in _SECONDS:
        length = seconds(given)
        return int(length) if kind == "int" else length
    if field.name == "service_node_port_range":
        low, _, high = given.partition("-")
        return int(low), int(high)
    return given


def configuration(given: dict[str, Any]) -> Config:
    """Of what the command line gave; tells of flags that change nothing here."""
    for flag, (_, why) in ACCEPTED.items():
        if given.pop(_accepted(flag), ()):
            log.warning("--%s: %s", flag, why)
    fields = {f.name: f for f in dataclasses.fields(Config)}
    return Config(**{name: _value(fields[name], v) for name, v in given.items() if v not in (None, (), {})})


def run(**given: Any) -> None:
    import uvloop

    verbosity = given.pop("verbosity")
    form = given.get("logging_format") or "text"
    if form not in ("text", "json"):
        raise click.ClickException(f'[format: Invalid value: "{form}": Unsupported log format]')
    logsetup.to_stderr(logging.DEBUG if verbosity >= 4 else logging.INFO, json=form == "json")
    try:
        config = configuration(given)
    except ValueError as e:
        raise click.ClickException(str(e)) from None
    if not config.data_dir and not config.etcd_servers:
        config.data_dir = "/var/lib/berg/apiserver"
    uvloop.run(_serve(config))


async def _serve(config: Config) -> None:
    from berg.apiserver.server import APIServer
    from berg.storage.interface import StoreError

    server = APIServer(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start()
    except (OSError, ValueError, StoreError) as e:
        await server.stop()
        raise click.ClickException(_explained(e, config)) from None
    if config.data_dir:
        _write_kubeconfig(Path(config.data_dir), server.port)
    collector.settled()
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
