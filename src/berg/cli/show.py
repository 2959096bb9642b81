"""`berg status`: what runs, and how much memory it takes. Nothing is said that was not looked at just now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from berg.lifecycle.errors import LifecycleError, NotThere
from berg.lifecycle.layout import Layout
from berg.lifecycle.probe import Probe
from berg.lifecycle.registry import clusters, supervisor_of
from berg.lifecycle.spec import ClusterSpec
from berg.lifecycle.supervisor import read_pid


def status(name: str | None, data_dir: str | None, output: str) -> None:
    if name or data_dir:
        layout = Layout.of(name or "default", data_dir).require()
        found = {name or "default": layout.root}
    else:
        found = clusters()
    if not found and output == "table":
        raise NotThere("there is no cluster on this machine", "Make one with: berg up")
    rows = [_cluster(n, Layout(root)) for n, root in found.items()]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        _print(row)


def _cluster(name: str, layout: Layout) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "dataDir": str(layout.root), "state": "stopped", "processes": [], "nodes": []}
    try:
        spec = ClusterSpec.read(layout.spec)
    except LifecycleError as e:
        return row | {"state": "damaged", "error": str(e)}
    row |= {"server": f"https://127.0.0.1:{spec.api_port}", "runtime": spec.runtime, "kubernetes": spec.kubernetes}
    if not supervisor_of(layout.root):
        return row
    for path in sorted(layout.run.glob("*.pid")):
        if pid := read_pid(path):
            row["processes"].append({"role": path.stem, "pid": pid, "memoryBytes": resident_bytes(pid)})
    probe = Probe(layout.kubeconfig("admin"))
    row["state"] = "ready" if probe.ready() else "starting"
    if row["state"] == "ready":
        nodes = (probe.get_json("/api/v1/nodes?limit=20") or {}).get("items", [])
        row["nodes"] = [{"name": n["metadata"]["name"], "ready": _ready(n)} for n in nodes]
    return row


def _ready(node: dict[str, Any]) -> str:
    conditions = node.get("status", {}).get("conditions", ())
    return next((c["status"] for c in conditions if c["type"] == "Ready"), "Unknown")


def resident_bytes(pid: int) -> int:
    """Proportional where the kernel says it (shared pages counted once), else resident."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
    except (OSError, StopIteration):
        return 0


def _print(row: dict[str, Any]) -> None:
    colour = {"ready": "green", "starting": "yellow", "damaged": "red"}.get(row["state"])
    click.echo(f"{click.style(row['name'], bold=True)}  {click.style(row['state'], fg=colour)}  {row['dataDir']}")
    if "error" in row:
        click.echo(f"  {row['error']}")
        return
    click.echo(f"  {row['server']}  {row['kubernetes']}  runtime {row['runtime']}")
    for p in row["processes"]:
        click.echo(f"  {p['role']:<24} pid {p['pid']:<8} {p['memoryBytes'] / 2**20:7.1f} MiB")
    if row["processes"]:
        total = sum(p["memoryBytes"] for p in row["processes"])
        click.echo(f"  {'together':<36} {total / 2**20:8.1f} MiB")
    for n in row["nodes"]:
        click.echo(f"  node {n['name']:<19} {'Ready' if n['ready'] == 'True' else 'NotReady'}")
