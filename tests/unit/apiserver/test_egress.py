from pathlib import Path

import pytest

from berg.apiserver import egress

HEAD = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n"


def told(directory: Path, text: str) -> str:
    file = directory / "egress.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as e:
        egress.check(str(file))
    return str(e.value)


def test_direct_connections_are_what_there_is(tmp_path: Path) -> None:
    file = tmp_path / "egress.yaml"
    file.write_text(HEAD + "- {name: cluster, connection: {proxyProtocol: Direct}}\n")
    egress.check(str(file))


@pytest.mark.parametrize(
    ("selections", "why"),
    [
        (
            "- {name: etcd, connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: /x}}}}",
            'connections to "etcd" cannot go by HTTPConnect here: only Direct is followed',
        ),
        (
            "- {name: cluster, connection: {proxyProtocol: Pigeon}}",
            'service.connection.protocol: Unsupported value: "Pigeon": supported values: '
            '"Direct", "HTTPConnect", "GRPC"',
        ),
        (
            "- {name: moon, connection: {proxyProtocol: Direct}}",
            'service.connection: Unsupported value: "moon": supported values: "cluster", "controlplane", "etcd"',
        ),
        (
            "- {name: cluster, connection: {proxyProtocol: Direct}}\n- {name: Cluster, connection: "
            "{proxyProtocol: Direct}}",
            'service.connection[1]: Duplicate value: "cluster"',
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, selections: str, why: str) -> None:
    assert why in told(tmp_path, f"{HEAD}{selections}\n")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert "no EgressSelectorConfiguration" in told(tmp_path, "kind: Pod\napiVersion: v1\n")
    with pytest.raises(ValueError, match="unable to read egress selector configuration"):
        egress.check(str(tmp_path / "nowhere"))
