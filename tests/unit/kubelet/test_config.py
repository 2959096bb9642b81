import pytest

from berg.kubelet import config
from berg.kubelet.config import KubeletConfig, duration_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m30s", 90), ("250ms", 0.25), ("0", 0), ("1h", 3600), ("-5s", -5), (7, 7)]
)
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["5", "1x", "s", "1 s"])
def test_wrong_durations(text):
    with pytest.raises(ValueError, match="duration"):
        duration_s(text)


def test_a_configuration_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("""
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
maxPods: 50
nodeStatusUpdateFrequency: 20s
authentication:
  anonymous: {enabled: true}
  x509: {clientCAFile: /ca.crt}
cgroupsPerQOS: false
topologyManagerPolicy: none
""")
    c = config.load(path)
    assert (c.cluster_dns, c.max_pods, c.node_status_update_frequency) == (["10.96.0.10"], 50, 20.0)
    assert (c.anonymous_auth, c.client_ca_file, c.cgroups_per_qos) == (True, "/ca.crt", False)
    assert c.other == {"topologyManagerPolicy": "none"}
    shown = config.to_document(c)
    assert shown["maxPods"] == 50
    assert shown["topologyManagerPolicy"] == "none"
    assert shown["authentication"]["anonymous"]["enabled"] is True


def test_wrong_files_are_refused():
    with pytest.raises(ValueError, match="KubeletConfiguration"):
        config.apply(KubeletConfig(), {"kind": "Pod"})
    with pytest.raises(ValueError, match="max_pods"):
        config.apply(KubeletConfig(), {"kind": "KubeletConfiguration", "maxPods": "many"})
