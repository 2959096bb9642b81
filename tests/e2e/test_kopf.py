"""A real operator written with kopf (`operators/databases.py`) on a real cluster: handlers of every kind, admission
webhooks, peering, finalizers, owned objects, and what is resumed after a kill."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, eventually

pytestmark = pytest.mark.judge

OPERATOR = Path(__file__).parent / "operators" / "databases.py"


def definition(plural: str, kind: str, group: str = "pg.example.com", scope: str = "Namespaced") -> dict[str, Any]:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": free, "status": free}}
    status = {"status": {}} if kind != "KopfPeering" else {}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": status,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": scope, "names": {"plural": plural, "kind": kind}, "versions": [version]},
    }


def certificate(directory: Path) -> dict[str, str]:
    """For the operator's webhooks: signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "webhooks")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (directory / "webhook.crt").write_bytes(made.public_bytes(pem))
    (directory / "webhook.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return {
        "WEBHOOK_CERTIFICATE": str(directory / "webhook.crt"),
        "WEBHOOK_KEY": str(directory / "webhook.key"),
    }


class Operator:
    """One process of `kopf run`."""

    def __init__(self, cluster: Cluster, namespace: str, log: Path, priority: int, environment: dict[str, str]) -> None:
        self.log = log
        command = [sys.executable, "-m", "kopf", "run", "-n", namespace, "--peering", "databases",
                   "--priority", str(priority), "--verbose", str(OPERATOR)]  # fmt: skip
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, env={**cluster.environment, **environment}, stdout=out, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        """As a pod's end does it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def says(self, text: str) -> None:
        eventually(lambda: text in self.log.read_text(), f"{text!r} in\n{self.log.read_text()[-3000:]}", 20)


@pytest.fixture
def operators() -> Iterator[list[Operator]]:
    running: list[Operator] = []
    yield running
    for operator in running:
        operator.kill()


@pytest.fixture
def definitions(cluster: Cluster) -> Iterator[None]:
    import json

    made = [
        definition("databases", "Database"),
        definition("users", "User"),
        definition("kopfpeerings", "KopfPeering", "kopf.dev"),
    ]
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    names = [f"crd/{d['metadata']['name']}" for d in made]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=20s", *names)
    yield
    cluster.kubectl("delete", *names, "--wait=false", check=False)


def test_an_operator(
    cluster: Cluster, namespace: str, definitions: None, operators: list[Operator], tmp_path: Path
) -> None:
    def create(kind: str, name: str, **spec: Any) -> Any:
        import json

        head = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
        body = json.dumps({"apiVersion": "pg.example.com/v1", "kind": kind, **head})
        return cluster.kubectl("create", "-f", "-", stdin=body, check=False)

    def status(field: str, of: str = "database/orders") -> str:
        return cluster.out("-n", namespace, "get", of, "-o", f"jsonpath={{.status.{field}}}", check=False)

    environment = certificate(tmp_path)
    peering = f"{{apiVersion: kopf.dev/v1, kind: KopfPeering, metadata: {{name: databases, namespace: {namespace}}}}}"
    cluster.kubectl("create", "-f", "-", stdin=peering)
    first = Operator(cluster, namespace, tmp_path / "first.log", 100, environment)
    operators.append(first)
    configurations = "mutatingwebhookconfiguration/webhooks.pg.example.com", "validatingwebhookconfiguration/webhooks.pg.example.com"  # noqa: E501  # fmt: skip
    eventually(
        lambda: (
            "defaults" in cluster.out("get", *configurations, "-o", "yaml", check=False)
            and "privileges" in cluster.out("get", *configurations, "-o", "yaml", check=False)
        ),
        f"the operator's webhooks\n{first.log.read_text()[-2000:]}",
        20,
    )

    # A user waits for its database; wrong ones are refused, by the operator's own words
    refused = create("User", "eve", database="orders", privilege="all")
    assert refused.returncode and "privilege 'all' is not known" in refused.stderr, refused
    allowed = create("User", "ann", database="orders", privilege="write")
    assert "Warning: this user may write" in allowed.stderr, allowed
    assert create("Database", "orders").returncode == 0
    assert cluster.out("-n", namespace, "get", "database/orders", "-o", "jsonpath={.spec.replicas}") == "1"
    eventually(lambda: status("readyReplicas") == "1", f"a running database\n{first.log.read_text()[-3000:]}")
    address = cluster.out("-n", namespace, "get", "service/orders", "-o", "jsonpath={.spec.clusterIP}")
    assert status("provide.address") == address
    eventually(lambda: status("grant.secret", "user/ann") == "ann-login", "the user's secret", 20)
    guarded = ("-n", namespace, "get", "configmap/orders-guarded", "--ignore-not-found", "-o", "name")
    eventually(lambda: cluster.out(*guarded), "the daemon's word", 10)
    eventually(lambda: int(status("ticks") or 0) >= 2, "two ticks of the timer", 10)

    # Changes
    cluster.kubectl("-n", namespace, "patch", "database/orders", "--type=merge", "-p", '{"spec":{"replicas":2}}')
    eventually(lambda: status("lastChange") == "spec.replicas", "the update's handler", 20)
    replicas = ("-n", namespace, "get", "statefulset/orders", "-o", "jsonpath={.spec.replicas}")
    eventually(lambda: cluster.out(*replicas) == "2", "the field's handler", 10)

    # Killed and started again: it goes on where it was, and only one of two works
    first.kill()
    cluster.kubectl("-n", namespace, "patch", "database/orders", "--type=merge", "-p", '{"spec":{"replicas":1}}')
    second = Operator(cluster, namespace, tmp_path / "second.log", 200, environment)
    operators.append(second)
    eventually(lambda: int(status("resumed") or 0) >= 1, f"resumed\n{second.log.read_text()[-3000:]}", 20)
    eventually(lambda: cluster.out(*replicas) == "1", "what was missed is done", 10)
    third = Operator(cluster, namespace, tmp_path / "third.log", 10, environment)
    operators.append(third)
    third.says("Pausing the watch-stream for databases")
    third.stop()

    # The end: the handler ran, the daemon ended, what was owned is gone
    cluster.kubectl("-n", namespace, "delete", "database/orders", "user/ann", "--timeout=30s")
    maps = cluster.out("-n", namespace, "get", "configmaps", "-o", "name").split()
    assert {"configmap/orders-dump", "configmap/orders-unguarded"} <= set(maps)
    owned = ("statefulset/orders", "service/orders", "secret/orders", "secret/ann-login")
    left = lambda: cluster.out("-n", namespace, "get", *owned, "--ignore-not-found", "-o", "name")  # noqa: E731
    eventually(lambda: left() == "", "garbage collection of what was owned", 20)
    events = cluster.out("-n", namespace, "get", "events", "--field-selector=reason=Provided", "-o", "name")
    assert events, "the operator's event about its object"
    second.stop()
    assert "Traceback" not in second.log.read_text(), second.log.read_text()
