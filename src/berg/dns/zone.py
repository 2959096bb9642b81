"""The records of the cluster's zone, worked out from Services and EndpointSlices. No network here.

    lookup(name, type) → Answer: records, or that the name has none of that type, or that there is no such name

Names are lower case without the last dot. Answers of one service are kept ready until it or its slices change.

Source: Kubernetes DNS-Based Service Discovery 1.1.0; CoreDNS' kubernetes plugin for what that leaves open.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from berg.machinery.status import Obj

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 255
TTL_S = 30
SCHEMA_VERSION = "1.1.0"


@dataclass(frozen=True, slots=True)
class Record:
    """`data`: an address, a name, a text, or (priority, weight, port, name) of an SRV record."""

    name: str
    type: int
    data: str | tuple[int, int, int, str]
    ttl_s: int = TTL_S


@dataclass(frozen=True, slots=True)
class Answer:
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    exists: bool = True
    alias: str = ""
    """an ExternalName's target: the asker wants its records too"""


NO_SUCH_NAME = Answer(exists=False)
NO_DATA = Answer()


@dataclass(frozen=True, slots=True)
class _Endpoint:
    host: str
    address: str
    ports: tuple[tuple[str, str, int], ...]
    """name, protocol, number"""


class Source:
    """What the zone asks for; informers answer. `slices` are those of one service."""

    def __init__(
        self,
        service: Callable[[str, str], Obj | None],
        slices: Callable[[str, str], Sequence[Obj]],
        namespace: Callable[[str], bool],
        services_by_ip: Callable[[str], Sequence[Obj]],
        endpoints_by_ip: Callable[[str], Sequence[Obj]],
    ) -> None:
        self.service = service
        self.slices = slices
        self.namespace = namespace
        self.services_by_ip = services_by_ip
        self.endpoints_by_ip = endpoints_by_ip


class Zone:
    def __init__(self, source: Source, domain: str = "cluster.local") -> None:
        self.domain = domain
        self._source = source
        self._ready: dict[str, dict[tuple[str, int], Answer]] = {}

    def changed(self, key: str) -> None:
        """The service `namespace/name` or one of its slices is not what it was."""
        self._ready.pop(key, None)

    def owns(self, name: str) -> bool:
        return name == self.domain or name.endswith(f".{self.domain}")

    def lookup(self, name: str, type: int) -> Answer | None:
        """None: not this zone's business, ask elsewhere."""
        if type == PTR or name.endswith(".arpa"):
            return self._reverse(name, type)
        if not self.owns(name):
            return None
        parts = name[: -len(self.domain) - 1].split(".") if name != self.domain else []
        match parts:
            case []:
                return NO_DATA
            case ["dns-version"]:
                return self._one(Record(name, TXT, SCHEMA_VERSION), type)
            case ["svc"] | ["pod"]:
                return NO_DATA
            case [namespace, "svc"]:
                return NO_DATA if self._source.namespace(namespace) else NO_SUCH_NAME
            case [*inner, service, namespace, "svc"]:
                return self._service(name, type, inner, service, namespace)
            case [dashed, namespace, "pod"]:
                return self._pod(name, type, dashed, namespace)
            case [namespace, "pod"]:
                return NO_DATA if self._source.namespace(namespace) else NO_SUCH_NAME
            case _:
                return NO_SUCH_NAME

    @staticmethod
    def _one(record: Record, type: int) -> Answer:
        return Answer((record,)) if type in (record.type, ANY) else NO_DATA

    def _service(self, name: str, type: int, inner: list[str], service: str, namespace: str) -> Answer:
        key = f"{namespace}/{service}"
        kept = self._ready.setdefault(key, {})
        answer = kept.get((name, type))
        if answer is None:
            obj = self._source.service(namespace, service)
            if obj is None:
                self._ready.pop(key, None)  # a made-up name must not take memory
                return NO_SUCH_NAME
            answer = self._compute(name, type, inner, obj)
            if answer.exists:
                kept[name, type] = answer
        if len(answer.records) > 1:
            return Answer(tuple(random.sample(answer.records, len(answer.records))), answer.additional)
        return answer

    def _compute(self, name: str, type: int, inner: list[str], service: Obj) -> Answer:
        spec = service["spec"]
        base = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{self.domain}"
        if spec.get("type") == "ExternalName":
            target = str(spec.get("externalName", "")).rstrip(".").lower()
            return Answer((Record(name, CNAME, target),), alias=target) if not inner else NO_SUCH_NAME
        addresses = [a for a in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if a and a != "None"]
        match inner:
            case []:
                if type == SRV:
                    return self._srv(name, base, None, None, spec, addresses, service)
                if addresses:
                    return _addresses(name, type, addresses)
                return _addresses(name, type, [e.address for e in self._endpoints(service)], headless=True)
            case [host] if not addresses:
                found = [e.address for e in self._endpoints(service) if e.host == host]
                return _addresses(name, type, found, headless=True)
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                return self._srv(name, base, port[1:], protocol[1:], spec, addresses, service, wanted=type)
            case _:
                return NO_SUCH_NAME

    def _srv(
        self,
        name: str,
        base: str,
        port: str | None,
        protocol: str | None,
        spec: Obj,
        addresses: list[str],
        service: Obj,
        wanted: int = SRV,
    ) -> Answer:
        """SRV records of one named port, or of all (`port` None), with the addresses they lead to."""
        records: list[Record] = []
        extra: list[Record] = []
        if addresses:
            for p in spec.get("ports") or ():
                if port is None or (p.get("name") == port and p.get("protocol", "TCP").lower() == protocol):
                    records.append(Record(name, SRV, (0, 100, p["port"], base)))
            extra = [_address_record(base, a) for a in addresses] if records else []
        else:
            for e in self._endpoints(service):
                host = f"{e.host}.{base}"
                mine = [
                    Record(name, SRV, (0, 100, number, host))
                    for n, proto, number in e.ports
                    if port is None or (n == port and proto == protocol)
                ]
                records += mine
                extra += [_address_record(host, e.address)] if mine else []
        if not records:
            return NO_SUCH_NAME
        return Answer(tuple(dict.fromkeys(records)), tuple(dict.fromkeys(extra))) if wanted in (SRV, ANY) else NO_DATA

    def _endpoints(self, service: Obj) -> list[_Endpoint]:
        metadata = service["metadata"]
        found = []
        for piece in self._source.slices(metadata["namespace"], metadata["name"]):
            ports = tuple(
                (p.get("name") or "", p.get("protocol", "TCP").lower(), p["port"])
                for p in piece.get("ports") or ()
                if p.get("port") is not None
            )
            for e in piece.get("endpoints") or ():
                if (e.get("conditions") or {}).get("ready") is not False:
                    for address in e["addresses"]:
                        found.append(_Endpoint(e.get("hostname") or _dashed(address), address, ports))
        return found

    def _pod(self, name: str, type: int, dashed: str, namespace: str) -> Answer:
        """`10-244-0-5.NAMESPACE.pod`: the address that the name says, whoever has it (CoreDNS: pods insecure)."""
        if not self._source.namespace(namespace):
            return NO_SUCH_NAME
        for text in (dashed.replace("-", "."), dashed.replace("-", ":")):
            try:
                return _addresses(name, type, [str(ipaddress.ip_address(text))])
            except ValueError:
                continue
        return NO_SUCH_NAME

    def _reverse(self, name: str, type: int) -> Answer | None:
        address = _from_arpa(name)
        if address is None:
            return None
        names = [
            f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc.{self.domain}"
            for s in self._source.services_by_ip(address)
        ]
        for piece in self._source.endpoints_by_ip(address):
            service = (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
            for e in piece.get("endpoints") or ():
                if service and address in e["addresses"]:
                    host = e.get("hostname") or _dashed(address)
                    names.append(f"{host}.{service}.{piece['metadata']['namespace']}.svc.{self.domain}")
        if not names:
            return None
        if type not in (PTR, ANY):
            return NO_DATA
        return Answer(tuple(Record(name, PTR, n) for n in dict.fromkeys(names)))


def _addresses(name: str, type: int, addresses: Sequence[str], *, headless: bool = False) -> Answer:
    if not addresses:
        return NO_SUCH_NAME if headless else NO_DATA
    records = [_address_record(name, a) for a in dict.fromkeys(addresses)]
    return Answer(tuple(r for r in records if type in (r.type, ANY)))


def _address_record(name: str, address: str) -> Record:
    return Record(name, AAAA if ":" in address else A, address)


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _from_arpa(name: str) -> str | None:
    if name.endswith(".in-addr.arpa"):
        text = ".".join(reversed(name[: -len(".in-addr.arpa")].split(".")))
    elif name.endswith(".ip6.arpa"):
        digits = "".join(reversed(name[: -len(".ip6.arpa")].split(".")))
        text = ":".join(digits[i : i + 4] for i in range(0, len(digits), 4))
    else:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
