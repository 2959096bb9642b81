"""Names of services and pods, by Kubernetes DNS-Based Service Discovery 1.1.0; messages judged by dnslib."""

from __future__ import annotations

from typing import Any

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from berg.dns import wire
from berg.dns.zone import Answer, Source, Zone

SERVICES = {
    ("default", "web"): {"clusterIPs": ["10.96.0.7"], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    ("default", "db"): {"clusterIPs": ["None"], "ports": [{"name": "pg", "port": 5432}]},
    ("default", "out"): {"type": "ExternalName", "externalName": "example.com"},
    ("default", "empty"): {"clusterIPs": ["None"]},
}
SLICE = {
    "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "db"}},
    "ports": [{"name": "pg", "protocol": "TCP", "port": 5432}],
    "endpoints": [
        {"addresses": ["10.244.0.5"], "hostname": "db-0"},
        {"addresses": ["10.244.0.6"], "conditions": {"ready": True}},
        {"addresses": ["10.244.0.7"], "conditions": {"ready": False}},
    ],
}


def service(namespace: str, name: str) -> dict[str, Any] | None:
    spec = SERVICES.get((namespace, name))
    return None if spec is None else {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


@pytest.fixture
def zone() -> Zone:
    return Zone(
        Source(
            service=service,
            slices=lambda namespace, name: [SLICE] if name == "db" else [],
            namespace=lambda name: name == "default",
            services_by_ip=lambda a: [service("default", "web")] if a == "10.96.0.7" else [],  # type: ignore[list-item]
            endpoints_by_ip=lambda a: [SLICE] if a == "10.244.0.5" else [],
        )
    )


def ask(zone: Zone, name: str, type: str = "A") -> DNSRecord:
    """The whole way: a real query's bytes in, a reply parsed by someone else's code out."""
    query = wire.parse(DNSRecord.question(name, type).pack())
    found = zone.lookup(query.name, query.type)
    assert isinstance(found, Answer), "not the zone's business"
    code = wire.NOERROR if found.exists else wire.NXDOMAIN
    return DNSRecord.parse(wire.answer(query, code, found.records, (), found.additional))


@pytest.mark.parametrize(
    ("name", "type", "expected"),
    [
        ("web.default.svc.cluster.local", "A", {"10.96.0.7"}),
        ("WEB.Default.svc.cluster.local.", "A", {"10.96.0.7"}),
        ("web.default.svc.cluster.local", "AAAA", set()),
        ("_http._tcp.web.default.svc.cluster.local", "SRV", {"0 100 80 web.default.svc.cluster.local."}),
        ("db.default.svc.cluster.local", "A", {"10.244.0.5", "10.244.0.6"}),
        ("db-0.db.default.svc.cluster.local", "A", {"10.244.0.5"}),
        ("10-244-0-6.db.default.svc.cluster.local", "A", {"10.244.0.6"}),
        (
            "_pg._tcp.db.default.svc.cluster.local",
            "SRV",
            {"0 100 5432 db-0.db.default.svc.cluster.local.", "0 100 5432 10-244-0-6.db.default.svc.cluster.local."},
        ),
        ("out.default.svc.cluster.local", "CNAME", {"example.com."}),
        ("10-244-0-9.default.pod.cluster.local", "A", {"10.244.0.9"}),
        ("7.0.96.10.in-addr.arpa", "PTR", {"web.default.svc.cluster.local."}),
        ("5.0.244.10.in-addr.arpa", "PTR", {"db-0.db.default.svc.cluster.local."}),
        ("dns-version.cluster.local", "TXT", {'"1.1.0"'}),
        ("default.svc.cluster.local", "A", set()),
    ],
)
def test_records(zone: Zone, name: str, type: str, expected: set[str]) -> None:
    reply = ask(zone, name, type)
    assert reply.header.rcode == RCODE.NOERROR
    assert {str(rr.rdata) for rr in reply.rr} == expected


@pytest.mark.parametrize(
    "name",
    [
        "nothing.default.svc.cluster.local",
        "empty.default.svc.cluster.local",
        "db-1.db.default.svc.cluster.local",
        "web.other.svc.cluster.local",
        "other.svc.cluster.local",
        "web.default.svc.cluster.local.default.svc.cluster.local",
        "300-1-1-1.default.pod.cluster.local",
        "x.cluster.local",
    ],
)
def test_names_that_do_not_exist(zone: Zone, name: str) -> None:
    assert ask(zone, name).header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("name", ["example.com", "cluster.local.example.com", "1.0.0.127.in-addr.arpa"])
def test_the_rest_is_asked_elsewhere(zone: Zone, name: str) -> None:
    assert zone.lookup(name, QTYPE.PTR if name.endswith("arpa") else QTYPE.A) is None


def test_a_change_shows(zone: Zone) -> None:
    assert len(ask(zone, "db.default.svc.cluster.local").rr) == 2
    SLICE["endpoints"].append({"addresses": ["10.244.0.8"]})  # type: ignore[attr-defined]
    try:
        assert len(ask(zone, "db.default.svc.cluster.local").rr) == 2, "kept until told"
        zone.changed("default/db")
        assert len(ask(zone, "db.default.svc.cluster.local").rr) == 3
    finally:
        SLICE["endpoints"].pop()  # type: ignore[attr-defined]


def test_a_long_answer_is_cut_for_a_small_reader_and_says_so(zone: Zone) -> None:
    query = wire.parse(DNSRecord.question("db.default.svc.cluster.local").pack())
    found = zone.lookup(query.name, query.type)
    assert found is not None
    reply = DNSRecord.parse(wire.answer(query, 0, found.records * 40, limit=512))
    assert reply.header.tc == 1
    assert not reply.rr


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 11, b"\0" * 12, b"\1\2\1\0\0\1\0\0\0\0\0\0", b"\1\2\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
     b"\1\2\1\0\0\1\0\0\0\0\0\0\x3fabc"],
)  # fmt: skip
def test_broken_queries_are_wire_errors(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse(data)
