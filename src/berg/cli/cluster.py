"""Commands that make, show and end whole clusters."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from berg.cli.feature_gates import feature_gates as feature_gates_option
from berg.lifecycle.layout import Layout

if TYPE_CHECKING:
    from berg.lifecycle.spec import ClusterSpec

Command = Callable[..., Any]

name_option = click.option("--name", default="default", show_default=True, help="The cluster's name.")
data_dir_option = click.option("--data-dir", help="Where the cluster keeps its data.  [default: by name]")


class Steps:
    """Progress on a terminal: one line for each step, with the time it took; plain lines elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._text = ""
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        self.finish()
        self._text, self._began = text, time.monotonic()
        if self._live:
            click.secho(f" … {text}", fg="cyan", nl=False, err=True)

    def note(self, text: str) -> None:
        self.finish()
        click.echo(f"   {text}", err=True)

    def finish(self) -> None:
        if not self._text:
            return
        took = click.style(f"{time.monotonic() - self._began:.1f} s", dim=True)
        start = "\r" if self._live else ""
        click.echo(f"{start}{click.style(' ✓', fg='green')} {self._text}  {took}", err=True)
        self._text = ""

    def abandon(self) -> None:
        if self._text and self._live:
            click.secho(f"\r ✗ {self._text}", fg="red", err=True)
        self._text = ""


@click.command()
@name_option
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 20), help="Real nodes.")
@click.option("--sim-nodes", default=0, type=click.IntRange(0, 50_000), help="Simulated nodes to add.")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "berg", "containerd", "sim"]),
    help="What runs containers.",
)
@data_dir_option
@click.option("--api-port", type=click.IntRange(1, 65535), help="The API's port.  [default: 6443 or the next free]")
@click.option("--foreground", is_flag=True, help="Stay, and stop the cluster on Ctrl-C.")
@click.option("--wait", default=60.0, show_default=True, help="Seconds to wait until the cluster is ready.")
@click.option(
    "--containerd-socket",
    default="/run/containerd/containerd.sock",
    show_default=True,
    help="Where containerd listens, for --runtime containerd.",
)
@feature_gates_option
@click.option("--runtime-config", multiple=True, help="API versions to serve or not: GROUP/VERSION=true|false.")
@click.option(
    "--registry-mirror",
    multiple=True,
    metavar="REGISTRY=URL",
    help="Where to look for images first; REGISTRY may be `*`. Berg's own runtime only.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Put the context there, not into your own.")
def up(
    name: str,
    nodes: int,
    sim_nodes: int,
    runtime: str,
    data_dir: str | None,
    api_port: int | None,
    foreground: bool,
    wait: float,
    containerd_socket: str,
    feature_gates: dict[str, bool],
    runtime_config: tuple[str, ...],
    registry_mirror: tuple[str, ...],
    kubeconfig: Path | None,
) -> None:
    """Start a cluster, or one that was stopped, and wait until it is ready.

    \b
    Examples:
      berg up
      berg up --name test --runtime sim --sim-nodes 100
      sudo berg up --kubeconfig ./kubeconfig
    """
    from berg.lifecycle import up as life

    layout = Layout.of(name, data_dir)
    served = _served(runtime_config)
    options = life.Options(
        name,
        nodes,
        runtime,
        data_dir,
        api_port,
        wait,
        sim_nodes,
        containerd_socket,
        feature_gates,
        served,
        _mirrors(registry_mirror),
    )
    steps = Steps()
    began = time.monotonic()
    try:
        steps.step("Preparing")
        spec = life.plan(layout, options, steps)
        started = life.start(layout, spec)
        merged = _merge(layout, kubeconfig)
        life.wait(layout, spec, wait, steps)
        steps.finish()
    except BaseException:
        steps.abandon()
        raise
    what = "is up" if started else "was up already"
    click.echo(f"Cluster {click.style(name, bold=True)} {what} ({time.monotonic() - began:.1f} s).", err=True)
    elsewhere = f" --kubeconfig {merged}" if kubeconfig else ""
    click.echo(f"\nContext {spec.context} is in {merged}. Try:\n\n  kubectl{elsewhere} get nodes", err=True)
    if not _kubectl_on_path():
        click.echo(f"  berg kubectl{f' --name {name}' if name != 'default' else ''} get nodes", err=True)
    if foreground:
        _stay(layout)


def _served(given: tuple[str, ...]) -> dict[str, str]:
    pairs = (p.partition("=") for text in given for p in text.split(",") if p)
    found = {k.strip(): v.strip() for k, _, v in pairs}
    if found:
        from berg.apiserver.served import check

        try:
            check(found)
        except ValueError as e:
            raise click.ClickException(str(e)) from None
    return found


def _mirrors(given: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        registry, equals, url = text.partition("=")
        if not equals or not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{text!r} is not REGISTRY=URL", param_hint="--registry-mirror")
        found.setdefault(registry, []).append(url)
    return found


def _merge(layout: Layout, elsewhere: Path | None) -> Path:
    from berg.lifecycle import kubeconfig as files

    path = elsewhere or files.user_path()
    files.merge(path, files.read(layout.kubeconfig("admin")))
    return path


def _kubectl_on_path() -> bool:
    import shutil

    return shutil.which("kubectl") is not None


def _stay(layout: Layout) -> None:
    import select
    import signal

    from berg.cli import cleanup
    from berg.lifecycle.down import down as stop
    from berg.lifecycle.registry import supervisor_of

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a service manager says it
    click.echo("\nPress Ctrl-C to stop the cluster.", err=True)
    try:
        while pid := supervisor_of(layout.root):
            select.select([os.pidfd_open(pid)], [], [])
    except KeyboardInterrupt:
        click.echo("Stopping …", err=True)
        stop(layout, purge=False, cleaners=cleanup.CLEANERS)


@click.command()
@name_option
@data_dir_option
@click.option("--purge", is_flag=True, help="Remove the data and the kubeconfig context too.")
def down(name: str, data_dir: str | None, purge: bool) -> None:
    """Stop a cluster: processes, containers, networks, rules. The data stays unless --purge is given."""
    from berg.cli import cleanup
    from berg.lifecycle.down import down as stop

    steps = Steps()
    steps.step(f"Stopping the cluster in {data_dir}" if data_dir else f"Stopping cluster {name}")
    stop(Layout.of(name, data_dir), purge=purge, cleaners=cleanup.CLEANERS)
    steps.finish()


@click.command()
@click.option("--name", help="Only this cluster.")
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(name: str | None, data_dir: str | None, output: str) -> None:
    """Show the clusters of this machine: processes with their memory, nodes, and where to reach them."""
    from berg.cli import show

    show.status(name, data_dir, output)


@click.command()
@name_option
@data_dir_option
@click.option("--user", default="admin", show_default=True, help="Whose: admin, scheduler, controller-manager, …")
def kubeconfig(name: str, data_dir: str | None, user: str) -> None:
    """Print a kubeconfig.

    \b
    Example:
      berg kubeconfig > kubeconfig && kubectl --kubeconfig kubeconfig get nodes
    """
    from berg.lifecycle.errors import NotThere

    path = Layout.of(name, data_dir).require().kubeconfig(user)
    if not path.exists():
        who = ", ".join(p.stem for p in sorted(path.parent.glob("*.kubeconfig")))
        raise NotThere(f"no kubeconfig for {user!r}", f"There are: {who}")
    click.echo(path.read_text(), nl=False)


@click.command()
@click.argument("component", required=False)
@name_option
@data_dir_option
@click.option("-f", "--follow", is_flag=True, help="Go on as more is logged.")
@click.option("--tail", default=200, show_default=True, help="How many of the last lines; -1 for all.")
def logs(component: str | None, name: str, data_dir: str | None, follow: bool, tail: int) -> None:
    """Show what a component logged; without COMPONENT, which ones there are.

    \b
    Examples:
      berg logs
      berg logs kubelet -f
    """
    from berg.lifecycle.errors import NotThere

    layout = Layout.of(name, data_dir).require()
    known = sorted({p.stem for p in layout.logs.glob("*.log")})
    if component is None:
        click.echo("\n".join(known))
        return
    path = layout.log(component)
    if component not in known:
        raise NotThere(f"no component {component!r} has logged here", f"There are: {', '.join(known)}")
    with path.open(errors="replace") as log:
        lines = log.readlines()
        click.echo("".join(lines if tail < 0 else lines[-tail:]), nl=False)
        while follow:
            if more := log.read():
                click.echo(more, nl=False)
            else:
                time.sleep(0.2)


def load_spec(name: str, data_dir: str | None) -> tuple[Layout, ClusterSpec]:
    from berg.lifecycle.spec import ClusterSpec

    layout = Layout.of(name, data_dir).require()
    return layout, ClusterSpec.read(layout.spec)
