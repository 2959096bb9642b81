import dataclasses
from typing import Any

import pytest
from click.testing import CliRunner

from berg.cli import controller_manager
from berg.controllers.config import Config


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """The manager's configuration, instead of a running manager."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "current-context: x\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: x, context: {cluster: c}}]\n"
    )
    found: list[Config] = []

    def run(build: Any) -> None:
        found.extend(m.config for m in build())

    monkeypatch.setattr("berg.cli.run.run", run)

    def start(*args: str) -> tuple[Any, Config | None]:
        result = CliRunner().invoke(controller_manager.command, ["--kubeconfig", str(kubeconfig), *args])
        return result, found[-1] if found else None

    return start


def test_flags_are_upstreams(started: Any):
    result, config = started(
        "--controllers=*,-job-controller",
        "--leader-elect=false",
        "--use-service-account-credentials",
        "--node-monitor-grace-period=1m30s",
        "--cluster-cidr=10.0.0.0/8",
        "--concurrent-deployment-syncs=7",
        "--secure-port=0",
        "--feature-gates=StorageVersionAPI=true",
        "--cloud-provider=external",
    )
    assert result.exit_code == 0, result.output
    assert "--cloud-provider has no effect here" in result.output
    assert config is not None
    assert config.feature_gates == {"StorageVersionAPI": True}
    assert config.controllers == ["*", "-job-controller"]
    assert (config.leader_elect, config.use_service_account_credentials) == (False, True)
    assert (config.node_monitor_grace_period_s, config.cluster_cidr, config.secure_port) == (90, "10.0.0.0/8", 0)
    assert config.concurrent_syncs == {"deployment-controller": 7}


def test_without_flags_the_defaults_are_upstreams(started: Any):
    _, config = started()
    assert config == dataclasses.replace(Config(), leader_elect=True, secure_port=10257)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--controllers=jobs"], '"jobs" is not in the list of known controllers'),
        (["--node-monitor-grace-period=soon"], "is no duration"),
        (["--kubeconfig=/none"], "no such file"),
    ],
)
def test_nonsense_is_named(started: Any, args: list[str], text: str):
    result, _ = started(*args)
    assert result.exit_code != 0
    assert text in result.output
