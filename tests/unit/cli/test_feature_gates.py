"""Every component knows the gates, and refuses what it does not know before it does anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from berg.cli.main import cli
from berg.lifecycle.spec import ClusterSpec


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


def test_what_up_was_told_reaches_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from berg.lifecycle import up

    monkeypatch.setattr(up, "start", lambda layout, spec: (_ for _ in ()).throw(RuntimeError("planned")))
    command = ["up", "--name=t", f"--data-dir={tmp_path / 't'}", "--runtime=sim"]
    command += ["--feature-gates=WatchList=false", "--runtime-config=resource.k8s.io/v1beta1,api/alpha=true"]
    command += ["--registry-mirror=registry.k8s.io=http://127.0.0.1:5000", "--registry-mirror=*=https://m.example"]
    result = CliRunner().invoke(cli, command)
    assert str(result.exception) == "planned"
    spec = ClusterSpec.read(tmp_path / "t" / "spec.json")
    assert spec.feature_gates == {"WatchList": False}
    assert spec.runtime_config == {"resource.k8s.io/v1beta1": "", "api/alpha": "true"}
    assert spec.registry_mirrors == {"registry.k8s.io": ["http://127.0.0.1:5000"], "*": ["https://m.example"]}
    again = CliRunner().invoke(
        cli, ["up", "--name=t", f"--data-dir={tmp_path / 't'}", "--feature-gates=WatchList=true"]
    )
    assert str(again.exception) == "planned"
    assert ClusterSpec.read(tmp_path / "t" / "spec.json").feature_gates == {"WatchList": True}
    monkeypatch.setattr(up, "supervisor_of", lambda root: 1)
    running = CliRunner().invoke(cli, ["up", "--name=t", f"--data-dir={tmp_path / 't'}", "--feature-gates=WatchList=0"])
    assert "is up with other feature gates" in str(running.exception)
    refused = CliRunner().invoke(cli, ["up", "--name=t", "--runtime-config=a.io/v1=true"])
    assert refused.exit_code == 1 and "unknown api groups a.io/v1" in refused.output
    refused = CliRunner().invoke(cli, ["up", "--name=t", "--registry-mirror=nowhere"])
    assert refused.exit_code == 2 and "is not REGISTRY=URL" in refused.output
