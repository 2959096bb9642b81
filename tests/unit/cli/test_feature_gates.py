"""Every component knows the gates, and refuses what it does not know before it does anything else."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from berg.cli.main import cli


@pytest.mark.parametrize(
    "command",
    [
        ["apiserver"],
        ["controller-manager", "--kubeconfig=none"],
        ["scheduler", "--kubeconfig=none"],
        ["kubelet", "--kubeconfig=none"],
        ["proxy", "--kubeconfig=none"],
        ["up", "--name=never"],
    ],
)
def test_an_unknown_gate_is_refused(command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--feature-gates=Flying=true"])
    assert result.exit_code == 1
    assert "unrecognized feature gate: Flying" in result.output
