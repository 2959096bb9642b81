"""`berg`: one table of commands, each loaded only when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import NoReturn

import click

import berg

# name → (module, what it is for)
CLUSTER = {
    "up": ("cluster", "Start a cluster and wait until it is ready."),
    "down": ("cluster", "Stop a cluster; --purge removes its data too."),
    "status": ("cluster", "Show clusters, their processes and nodes."),
    "kubeconfig": ("cluster", "Print a cluster's kubeconfig."),
    "logs": ("cluster", "Show what a component logged."),
    "image": ("image", "Import, pull, list and remove images."),
    "kubectl": ("kubectl", "Run kubectl against a cluster."),
}
COMPONENTS = {
    "apiserver": ("apiserver", "Run the API server alone."),
    "controller-manager": ("controller_manager", "Run the controllers alone."),
    "scheduler": ("scheduler", "Run the scheduler alone."),
    "kubelet": ("kubelet", "Run the kubelet alone."),
    "proxy": ("proxy", "Run the service proxy alone."),
    "dns": ("dns", "Run the cluster DNS alone."),
    "etcd": ("etcd", "Run the store as an etcd server."),
    "inspect": ("inspect", "Serve a snapshot read-only to kubectl."),
}
COMMANDS = CLUSTER | COMPONENTS


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (module, _) in COMMANDS.items() if _exists(module)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS or not _exists(COMMANDS[name][0]):
            return None
        module = importlib.import_module(f"berg.cli.{COMMANDS[name][0]}")
        command = getattr(module, name.replace("-", "_"), None) or module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, table in (("Clusters", CLUSTER), ("Components", COMPONENTS)):
            rows = [(name, text) for name, (module, text) in table.items() if _exists(module)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(f"berg.cli.{module}") is not None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(berg.__version__, prog_name="berg")
def cli() -> None:
    """A complete Kubernetes in Python.

    \b
    Examples:
      berg up                       a cluster on this machine, with your kubectl pointed at it
      berg up --runtime sim         the same without real containers (no root needed)
      berg kubectl get pods -A      kubectl against it
      berg down --purge             gone, and nothing left
    """


def main() -> None:
    from berg.lifecycle.errors import LifecycleError

    try:
        cli(standalone_mode=True)
    except LifecycleError as e:
        _give_up(str(e), e.hint)
    except PermissionError as e:
        _give_up(str(e), "Run it as the user whose files these are, or choose another place with --data-dir.")


def _give_up(message: str, hint: str) -> NoReturn:
    click.secho(f"Error: {message}", fg="red", err=True)
    if hint:
        click.echo(hint, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
