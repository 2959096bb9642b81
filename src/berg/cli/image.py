"""`berg image`: the images of a cluster's nodes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from berg.cli.cluster import data_dir_option, load_spec, name_option
from berg.lifecycle.errors import LifecycleError


@click.group()
def command() -> None:
    """Import, pull, list and remove images.

    \b
    Examples:
      berg image import web.tar
      berg image import web.tar --as registry.k8s.io/web:1
      berg image ls
    """


def _on_every_node(name: str, data_dir: str | None, request: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The result by node, with progress shown on the way. Raises LifecycleError."""
    from berg.cli.image_service import ask

    layout, spec = load_spec(name, data_dir)
    if spec.runtime == "containerd":
        _containerd(spec.containerd_socket, request)
        return {}
    if not spec.nodes or spec.runtime != "berg":
        raise LifecycleError(
            f"cluster {name!r} runs on {spec.runtime}", "Only Berg's own runtime has images that berg image can manage."
        )
    results = {}
    for node in spec.nodes:
        try:
            for message in ask(layout.run / f"images-{node.name}.sock", request):
                if "progress" in message:
                    _show(message["progress"])
                elif "error" in message:
                    raise LifecycleError(message["error"])
                else:
                    results[node.name] = message["result"]
        except OSError as e:
            raise LifecycleError(f"node {node.name} does not answer: {e}", "Is the cluster up? berg status") from e
    return results


def _containerd(socket: str, request: dict[str, Any]) -> None:
    """containerd has a tool of its own for its images."""
    import shutil
    import subprocess

    if request.get("credentials") or (request["op"] == "import" and request["name"]):
        raise LifecycleError("containerd's images take no credentials or other names here", "Use ctr or crictl.")
    program = shutil.which("ctr")
    if program is None:
        raise LifecycleError("there is no ctr on the PATH", "It comes with containerd.")
    what = [request[key] for key in ("path", "name") if request.get(key)]
    done = subprocess.run([program, "--address", socket, "-n", "k8s.io", "images", request["op"], *what], check=False)
    if done.returncode:
        raise LifecycleError(f"ctr images {request['op']} failed")


def _show(progress: dict[str, Any]) -> None:
    if sys.stderr.isatty() and progress["stage"] != "done":
        of = f" {progress['current']}/{progress['total']}" if progress["total"] else ""
        click.secho(f"\r\033[K … {progress['stage']} {progress['item'][:60]}{of}", fg="cyan", nl=False, err=True)


def _done(verb: str, results: dict[str, list[dict[str, Any]]]) -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    for image in next(iter(results.values()), []):
        click.echo(f"{verb} {', '.join(image['tags']) or image['id']}")


@command.command("import")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@name_option
@data_dir_option
@click.option("--as", "reference", help="The name to give it, instead of the one in the archive.")
def import_(archive: Path, name: str, data_dir: str | None, reference: str | None) -> None:
    """Import an OCI or docker archive (also compressed) into every node."""
    request = {"op": "import", "path": str(archive.absolute()), "name": reference}
    _done("imported", _on_every_node(name, data_dir, request))


@command.command()
@click.argument("reference")
@name_option
@data_dir_option
@click.option("--username", help="For a registry that wants it.")
@click.option("--password", help="For a registry that wants it.", envvar="BERG_REGISTRY_PASSWORD")
def pull(reference: str, name: str, data_dir: str | None, username: str | None, password: str | None) -> None:
    """Pull an image from its registry onto every node."""
    credentials = {"username": username, "password": password or ""} if username else None
    _done("pulled", _on_every_node(name, data_dir, {"op": "pull", "name": reference, "credentials": credentials}))


@command.command("ls")
@name_option
@data_dir_option
def list_(name: str, data_dir: str | None) -> None:
    """List the images of every node."""
    found: dict[tuple[str, str, int], list[str]] = {}
    for node, images in _on_every_node(name, data_dir, {"op": "ls"}).items():
        for image in images:
            for tag in image["tags"] or image["digests"] or ["<none>"]:
                found.setdefault((tag, image["id"], image["size"]), []).append(node)
    click.echo(f"{'IMAGE':<64} {'ID':<14} {'SIZE':>9}  NODES")
    for (tag, digest, size), nodes in sorted(found.items()):
        click.echo(f"{tag:<64} {digest.removeprefix('sha256:')[:12]:<14} {size / 2**20:>6.1f}MiB  {', '.join(nodes)}")


@command.command("rm")
@click.argument("reference")
@name_option
@data_dir_option
def remove(reference: str, name: str, data_dir: str | None) -> None:
    """Remove an image from every node."""
    _on_every_node(name, data_dir, {"op": "rm", "name": reference})
    click.echo(f"removed {reference}")
