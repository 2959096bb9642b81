"""resolv.conf, host names, /etc/hosts."""

import pytest

from berg.kubelet import dns, hosts

from .fakes import Events, pod


@pytest.fixture
def node(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("# c\nnameserver 9.9.9.9\nsearch example.org corp.\noptions timeout:1\n")
    return str(path)


def configure(node, one, cluster=("10.96.0.10",)):
    return dns.Configurer(list(cluster), "cluster.local", node).for_pod(one)


def test_cluster_first(node):
    c = configure(node, pod())
    assert c.servers == ["10.96.0.10"]
    assert c.searches == ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org", "corp"]
    assert c.options == ["ndots:5"]


def test_default_and_host_network(node):
    for one in (pod(dnsPolicy="Default"), pod(hostNetwork=True)):
        c = configure(node, one)
        assert (c.servers, c.searches, c.options) == (["9.9.9.9"], ["example.org", "corp"], ["timeout:1"])
    c = configure(node, pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"))
    assert c.servers == ["10.96.0.10"]


def test_none_takes_only_the_pods_own(node):
    own = {
        "nameservers": ["1.1.1.1"],
        "searches": ["x"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    c = configure(node, pod(dnsPolicy="None", dnsConfig=own))
    assert (c.servers, c.searches, c.options) == (["1.1.1.1"], ["x"], ["ndots:2", "edns0"])
    c = configure(node, pod(dnsConfig=own))
    assert c.servers == ["10.96.0.10", "1.1.1.1"]
    assert c.options == ["ndots:2", "edns0"]


def test_too_many_servers_are_cut_and_told(node):
    events = Events()
    configurer = dns.Configurer(["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], "", node, events)
    assert configurer.for_pod(pod()).servers == ["1.1.1.1", "2.2.2.2", "3.3.3.3"]
    assert events.reasons == ["DNSConfigForming"]


def test_host_names():
    assert dns.hostname_and_domain(pod("a" * 70), "x") == ("a" * 63, "")
    one = pod(hostname="h", subdomain="s", setHostnameAsFQDN=True)
    assert dns.hostname_and_domain(one, "cluster.local") == ("h", "s.ns.svc.cluster.local")
    assert dns.sandbox_hostname(one, "cluster.local") == "h.s.ns.svc.cluster.local"
    one["spec"]["subdomain"] = "s" * 60
    with pytest.raises(ValueError, match="too long"):
        dns.sandbox_hostname(one, "cluster.local")


def test_hosts_file(tmp_path):
    one = pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["x", "y"]}], subdomain="s")
    text = hosts.content(one, ["10.0.0.9"], "c.l")
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.0.0.9\tp.s.ns.svc.c.l\tp\n" in text
    assert text.endswith("# Entries added by HostAliases.\n1.2.3.4\tx\ty\n")
    node = tmp_path / "hosts"
    node.write_text("127.0.0.1 me\n")
    assert hosts.content(pod(hostNetwork=True), [], "", node) == (
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n"
    )
    assert not hosts.wanted(pod(), {"volumeMounts": [{"mountPath": "/etc/hosts"}]}, ["1"])
    assert not hosts.wanted(pod(), {}, [])
