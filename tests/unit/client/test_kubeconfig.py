import base64
import stat
from pathlib import Path

import pytest

from berg.client.kubeconfig import Kubeconfig, KubeconfigError

ONE = """
apiVersion: v1
kind: Config
current-context: one
clusters: [{name: c, cluster: {server: "https://one:6443", certificate-authority: ca.crt}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: one, context: {cluster: c, user: u, namespace: dev}}]
"""
TWO = """
current-context: two
clusters: [{name: c, cluster: {server: "https://other"}}, {name: d, cluster: {server: "http://two:8080"}}]
contexts: [{name: two, context: {cluster: d, user: u}}]
"""


def test_the_first_file_to_name_a_thing_wins(tmp_path: Path):
    (tmp_path / "one").write_text(ONE)
    (tmp_path / "two").write_text(TWO)
    (tmp_path / "ca.crt").write_text("CA")
    k = Kubeconfig.load(f"{tmp_path}/one:{tmp_path}/two:{tmp_path}/absent")
    e = k.endpoint()
    assert (e.server, e.namespace, e.ca_data, e.token) == ("https://one:6443", "dev", b"CA", "secret")
    assert k.endpoint("two").server == "http://two:8080"


def test_inline_data_goes_before_files(tmp_path: Path):
    k = Kubeconfig()
    k.set("clusters", "c", {"server": "s", "certificate-authority-data": base64.b64encode(b"X").decode()})
    k.set("contexts", "x", {"cluster": "c"})
    assert k.endpoint("x").ca_data == b"X"
    k.save(tmp_path / "sub" / "config")
    assert stat.S_IMODE((tmp_path / "sub" / "config").stat().st_mode) == 0o600
    assert Kubeconfig.load(str(tmp_path / "sub" / "config")).raw == k.raw


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(KubeconfigError, match="no such file"):
        Kubeconfig.load(str(tmp_path / "none"))
    with pytest.raises(KubeconfigError, match='context "x" does not exist'):
        Kubeconfig().endpoint("x")
    with pytest.raises(KubeconfigError, match="current-context"):
        Kubeconfig().endpoint()
