"""Specs, kubeconfigs and certificates: what a cluster's processes read of each other."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from berg.lifecycle import certs, kubeconfig
from berg.lifecycle.errors import BadDataDir, LifecycleError
from berg.lifecycle.layout import Layout
from berg.lifecycle.spec import ClusterSpec, NodeSpec


@pytest.fixture
def made(tmp_path: Path) -> tuple[Layout, ClusterSpec]:
    layout = Layout(tmp_path / "c")
    layout.make()
    spec = ClusterSpec("c", 3, 6443, "192.0.2.7", "berg", [NodeSpec("n1", "192.0.2.7")])
    spec.write(layout.spec)
    certs.ensure(layout, spec)
    return layout, spec


def test_a_spec_comes_back_as_it_was(made: tuple[Layout, ClusterSpec]) -> None:
    layout, spec = made
    assert ClusterSpec.read(layout.spec) == spec
    assert (spec.service_cidr, spec.pod_cidr, spec.dns_address) == ("10.99.0.0/16", "10.241.0.0/16", "10.99.0.10")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": 2}', '{"name": "x"}'])
def test_a_spec_of_another_layout_or_damaged_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(BadDataDir) as refused:
        ClusterSpec.read(tmp_path / "spec.json")
    assert "--purge" in refused.value.hint


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a" * 33, "../x", "a b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(LifecycleError):
        Layout.of(name)


def test_certificates_say_who_they_are_for(made: tuple[Layout, ClusterSpec]) -> None:
    layout, _ = made
    server = x509.load_pem_x509_certificate((layout.pki / "apiserver.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc.cluster.local" in names.get_values_for_type(x509.DNSName)
    assert {"10.99.0.1", "192.0.2.7", "127.0.0.1"} <= {str(a) for a in names.get_values_for_type(x509.IPAddress)}
    kubelet = x509.load_pem_x509_certificate((layout.pki / "kubelet-n1.crt").read_bytes())
    assert kubelet.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"


def test_keys_are_nobody_elses(made: tuple[Layout, ClusterSpec]) -> None:
    layout, _ = made
    for path in [*layout.pki.glob("*.key"), *layout.root.glob("*.kubeconfig")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_certificates_are_kept_until_their_names_change(made: tuple[Layout, ClusterSpec]) -> None:
    layout, spec = made
    admin, server = (layout.pki / "admin.crt").read_bytes(), (layout.pki / "apiserver.crt").read_bytes()
    certs.ensure(layout, spec)
    assert (layout.pki / "apiserver.crt").read_bytes() == server
    spec.advertise_address = "192.0.2.8"
    certs.ensure(layout, spec)
    assert (layout.pki / "apiserver.crt").read_bytes() != server
    assert (layout.pki / "admin.crt").read_bytes() == admin


def test_merging_leaves_what_is_the_users(tmp_path: Path, made: tuple[Layout, ClusterSpec]) -> None:
    path = tmp_path / "config"
    theirs = {"name": "work", "context": {"cluster": "work", "user": "me"}}
    path.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": [theirs], "current-context": "work"})
    )
    layout, spec = made
    ours = yaml.safe_load(layout.kubeconfig("admin").read_text())
    for _ in range(2):
        kubeconfig.merge(path, ours)
    merged = yaml.safe_load(path.read_text())
    assert [c["name"] for c in merged["contexts"]] == ["work", "berg-c"]
    assert merged["current-context"] == "berg-c"
    kubeconfig.remove(path, spec.context)
    left = yaml.safe_load(path.read_text())
    assert (left["contexts"], left["clusters"], left["current-context"]) == ([theirs], [], "")


def test_a_kubeconfig_that_is_no_yaml_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("a: [")
    with pytest.raises(LifecycleError, match="can't be read"):
        kubeconfig.merge(path, {})
    assert path.read_text() == "a: ["


def test_a_kubelet_port_that_was_taken_meanwhile_is_given_up(
    made: tuple[Layout, ClusterSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    from berg.lifecycle import host, up

    class Quiet:
        def step(self, text: str) -> None: ...

        def note(self, text: str) -> None: ...

    layout, spec = made
    spec.nodes.append(NodeSpec("n2", "192.0.2.8", netns="berg-c-2"))
    spec.write(layout.spec)
    monkeypatch.setattr(host, "port_free", lambda port: port != 10250)
    monkeypatch.setattr(host, "address", lambda: "192.0.2.7")
    assert [n.kubelet_port for n in up.plan(layout, up.Options("c"), Quiet()).nodes] == [10251, 10250]
    assert ClusterSpec.read(layout.spec).nodes[0].kubelet_port == 10251
