"""Every command of the README's tutorial, in order, as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from berg.cli.kubectl import find

from .conftest import ROOT, Cluster

pytestmark = [pytest.mark.root, pytest.mark.judge]


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- tutorial -->\n```sh\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_there_is_a_tutorial() -> None:
    assert len(commands()) > 10


def test_the_tutorial(cluster: Cluster, tmp_path: Path) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    programs = {
        "python": f'exec {sys.executable} "$@"',
        "kubectl": f'exec {find("kubectl")} "$@"',
        "berg": f'c=$1; shift; if [ "$c" = image ]; then s=$1; shift; set -- "$s" --name {cluster.name} "$@"; fi\n'
        f'exec {sys.executable} -m berg.cli.main "$c" "$@"',
    }
    for name, line in programs.items():
        (bin / name).write_text(f"#!/bin/sh\n{line}\n")
        (bin / name).chmod(0o755)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    environment = {**cluster.environment, "PATH": f"{bin}:{cluster.environment['PATH']}"}
    outputs = {}
    for command in commands():
        done = subprocess.run(
            shlex.split(command),
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs[command] = done.stdout
    page = next(out for command, out in outputs.items() if "wget" in command)
    assert "nginx" in page.lower()
