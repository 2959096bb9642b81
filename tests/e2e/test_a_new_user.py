"""What a new user does with kubectl, on real containers. Read from top to bottom: it is one story in pieces."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import time
import urllib.request

import pytest

from berg.cli.kubectl import find

from .conftest import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.judge]

WEB = "registry.k8s.io/e2e-test-images/nginx:1.0"
BOX = "registry.k8s.io/e2e-test-images/busybox:1.0"


def test_the_node_is_ready_and_says_what_it_is(cluster: Cluster) -> None:
    [node] = cluster.get("nodes")["items"]
    ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    wide = cluster.out("get", "nodes", "-o", "wide")
    assert "Ready" in wide
    assert "v1.37" in wide


def test_discovery_and_explain(cluster: Cluster) -> None:
    names = cluster.out("api-resources", "-o", "name").splitlines()
    assert {"pods", "deployments.apps", "customresourcedefinitions.apiextensions.k8s.io"} <= set(names)
    assert "FIELDS:" in cluster.out("explain", "deployment.spec.strategy")
    assert "apps/v1" in cluster.out("api-versions")
    assert cluster.out("version").count("v1.37") >= 2


def test_deployment_story(cluster: Cluster, namespace: str) -> None:
    k = ("-n", namespace)
    cluster.kubectl(*k, "create", "deployment", "web", f"--image={WEB}", "--replicas=2")
    cluster.kubectl(*k, "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl(*k, "expose", "deployment", "web", "--port=80")
    cluster.kubectl(*k, "scale", "deployment/web", "--replicas=3")
    cluster.kubectl(*k, "wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=60s")
    addresses = eventually(
        lambda: len(_addresses(cluster, namespace)) == 3 and _addresses(cluster, namespace), "three endpoints"
    )
    assert len(set(addresses)) == 3

    # A client pod reaches the service by its name.
    page = cluster.out(
        *k, "run", "client", f"--image={BOX}", "--restart=Never", "--rm", "-i", "--quiet", "--",
        "wget", "-qO-", f"http://web.{namespace}.svc.cluster.local",
    )  # fmt: skip
    assert "nginx" in page.lower()

    # A rolling update, its history, and the way back.
    cluster.kubectl(*k, "set", "env", "deployment/web", "COLOUR=blue")
    cluster.kubectl(*k, "rollout", "status", "deployment/web", "--timeout=90s")
    assert len(cluster.out(*k, "rollout", "history", "deployment/web").splitlines()) >= 4
    cluster.kubectl(*k, "rollout", "undo", "deployment/web")
    cluster.kubectl(*k, "rollout", "status", "deployment/web", "--timeout=90s")
    template = cluster.get(*k, "deployment", "web")["spec"]["template"]
    assert "env" not in template["spec"]["containers"][0]

    described = cluster.out(*k, "describe", "deployment", "web")
    assert "ScalingReplicaSet" in described
    assert "3 desired" in described
    cluster.kubectl(*k, "delete", "deployment,service", "web", "--timeout=60s")
    eventually(lambda: not cluster.get(*k, "pods")["items"], "all pods gone")


def _addresses(cluster: Cluster, namespace: str) -> list[str]:
    slices = cluster.get("-n", namespace, "endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    return [
        a
        for s in slices
        for e in s.get("endpoints") or ()
        if e.get("conditions", {}).get("ready")
        for a in e["addresses"]
    ]


@pytest.fixture
def box(cluster: Cluster, namespace: str) -> str:
    """A running busybox pod called `box`."""
    cluster.kubectl("-n", namespace, "run", "box", f"--image={BOX}", "--", "sh", "-c", "echo hello; exec sleep 3600")
    cluster.kubectl("-n", namespace, "wait", "pod/box", "--for=condition=Ready", "--timeout=60s")
    return namespace


def test_exec_logs_cp_and_attach(cluster: Cluster, box: str) -> None:
    k = ("-n", box)
    assert cluster.out(*k, "exec", "box", "--", "hostname") == "box"
    assert cluster.kubectl(*k, "exec", "box", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert cluster.out(*k, "exec", "-i", "box", "--", "cat", stdin="through and through") == "through and through"
    assert cluster.out(*k, "logs", "box") == "hello"

    follower = cluster.popen(*k, "logs", "-f", "box", "--tail=1")
    assert follower.stdout
    assert follower.stdout.readline() == "hello\n"
    follower.terminate()
    follower.communicate()

    source = cluster.directory.parent / "payload.txt"
    source.write_text("payload " * 10_000)
    cluster.kubectl(*k, "cp", str(source), "box:/tmp/payload.txt")
    cluster.kubectl(*k, "cp", "box:/tmp/payload.txt", str(source) + ".back")
    assert source.with_name("payload.txt.back").read_text() == source.read_text()


def test_a_terminal(cluster: Cluster, namespace: str) -> None:
    """`kubectl run -it`, as a person at a terminal sees it."""
    leader, follower = pty.openpty()
    program = find("kubectl")
    assert program
    shell = subprocess.Popen(
        [program, "-n", namespace, "run", "me", "-it", "--rm", "--restart=Never", f"--image={BOX}", "--", "sh"],
        env=cluster.environment, stdin=follower, stdout=follower, stderr=follower, close_fds=True,
    )  # fmt: skip
    os.close(follower)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while text not in seen:
            assert time.monotonic() < deadline, seen.decode(errors="replace")
            if select.select([leader], [], [], 1)[0]:
                seen += os.read(leader, 4096)

    try:
        until(b"# ")
        os.write(leader, b"tty; expr 20 + 22\n")
        until(b"\r\n42\r\n")
        assert b"/dev/pts/" in seen
        os.write(leader, b"exit\n")
        shell.wait(30)
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)
    assert shell.returncode == 0
    eventually(lambda: not cluster.get("-n", namespace, "pods")["items"], "--rm removed the pod")


def test_port_forward(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "run", "web", f"--image={WEB}")
    cluster.kubectl("-n", namespace, "wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    forward = cluster.popen("-n", namespace, "port-forward", "pod/web", f"{port}:80")
    try:
        assert forward.stdout
        assert "Forwarding from" in forward.stdout.readline()
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert b"nginx" in answer.read().lower()
    finally:
        forward.terminate()
        forward.communicate()


def test_watching(cluster: Cluster, namespace: str) -> None:
    watcher = cluster.popen("-n", namespace, "get", "configmaps", "-w", "-o", "name")
    try:
        assert watcher.stdout
        time.sleep(0.5)
        cluster.kubectl("-n", namespace, "create", "configmap", "seen", "--from-literal=a=b")
        lines = iter(watcher.stdout.readline, "")
        assert "configmap/seen\n" in (next(lines) for _ in range(5))
    finally:
        watcher.terminate()
        watcher.communicate()


def test_apply_diff_and_patch(cluster: Cluster, namespace: str) -> None:
    def manifest(**data: str) -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "settings", "namespace": namespace},
                "data": data,
            }
        )

    assert "created" in cluster.out("apply", "-f", "-", stdin=manifest(a="1", b="2"))
    assert "unchanged" in cluster.out("apply", "-f", "-", stdin=manifest(a="1", b="2"))
    changed = cluster.kubectl("diff", "-f", "-", stdin=manifest(a="1", c="3"), check=False)
    assert changed.returncode == 1
    assert "-  b:" in changed.stdout
    assert "configured" in cluster.out("apply", "-f", "-", stdin=manifest(a="1", c="3"))
    assert cluster.get("-n", namespace, "configmap", "settings")["data"] == {"a": "1", "c": "3"}

    cluster.kubectl("-n", namespace, "patch", "configmap", "settings", "-p", '{"data":{"a":null,"d":"4"}}')
    assert cluster.get("-n", namespace, "configmap", "settings")["data"] == {"c": "3", "d": "4"}
    serverside = cluster.kubectl(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=manifest(c="9"), check=False
    )
    assert serverside.returncode != 0
    assert "conflict" in serverside.stderr
    cluster.kubectl("label", "-n", namespace, "configmap", "settings", "tier=front")
    assert "settings" in cluster.out("-n", namespace, "get", "configmaps", "-l", "tier=front")
    refused = cluster.kubectl("apply", "-f", "-", stdin='{"apiVersion": "v1", "kind": ', check=False)
    assert refused.returncode != 0


def test_rights(cluster: Cluster, namespace: str) -> None:
    assert cluster.out("auth", "can-i", "create", "deployments") == "yes"
    account = f"--as=system:serviceaccount:{namespace}:default"
    assert cluster.kubectl("auth", "can-i", "list", "secrets", account, check=False).stdout.strip() == "no"
    cluster.kubectl(
        "-n", namespace, "create", "rolebinding", "view", "--clusterrole=view", f"--serviceaccount={namespace}:default"
    )
    assert cluster.out("-n", namespace, "auth", "can-i", "list", "pods", account) == "yes"
    denied = cluster.kubectl("-n", namespace, "delete", "pod", "x", account, check=False)
    assert "Forbidden" in denied.stderr


def test_a_job_and_a_cron_job_complete(cluster: Cluster, namespace: str) -> None:
    k = ("-n", namespace)
    cluster.kubectl(*k, "create", "job", "once", f"--image={BOX}", "--", "sh", "-c", "echo done")
    cluster.kubectl(*k, "wait", "job/once", "--for=condition=Complete", "--timeout=60s")
    assert cluster.out(*k, "logs", "job/once") == "done"
    cluster.kubectl(*k, "create", "cronjob", "often", f"--image={BOX}", "--schedule=* * * * *", "--", "true")
    cluster.kubectl(*k, "create", "job", "now", "--from=cronjob/often")
    cluster.kubectl(*k, "wait", "job/now", "--for=condition=Complete", "--timeout=60s")

    def by_schedule() -> bool:
        jobs = [j for j in cluster.get(*k, "jobs")["items"] if j["metadata"]["name"] not in ("once", "now")]
        return any(j["status"].get("succeeded") for j in jobs)

    eventually(by_schedule, "the schedule makes a job, and it completes", 90)


def test_a_stateful_set_keeps_names(cluster: Cluster, namespace: str) -> None:
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "replicas": 2,
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": BOX, "command": ["sleep", "3600"]}],
                },
            },
        },
    }
    k = ("-n", namespace)
    cluster.kubectl(*k, "create", "service", "clusterip", "db", "--clusterip=None")
    cluster.kubectl(*k, "apply", "-f", "-", stdin=json.dumps(manifest))
    cluster.kubectl(*k, "rollout", "status", "statefulset/db", "--timeout=60s")
    first = cluster.get(*k, "pod", "db-0")["metadata"]["uid"]
    cluster.kubectl(*k, "delete", "pod", "db-0", "--wait=false")
    eventually(lambda: cluster.get(*k, "pods", "-l", "app=db")["items"][0]["metadata"]["uid"] != first, "a new db-0")
    cluster.kubectl(*k, "wait", "pod/db-0", "--for=condition=Ready", "--timeout=60s")
    found = eventually(
        lambda: (
            cluster.kubectl(
                *k, "exec", "db-1", "--", "nslookup", f"db-0.db.{namespace}.svc.cluster.local", check=False
            ).stdout
        ),
        "db-0 has a name",
    )
    assert cluster.get(*k, "pod", "db-0")["status"]["podIP"] in found


def test_images_that_are_not_there(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "run", "lost", "--image=localhost:1/no/such:image")

    def reason() -> str:
        [status] = cluster.get("-n", namespace, "pod", "lost")["status"].get("containerStatuses") or [{}]
        return str(status.get("state", {}).get("waiting", {}).get("reason", ""))

    eventually(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "ErrImagePull")
    eventually(lambda: reason() == "ImagePullBackOff", "ImagePullBackOff", 90)
    assert "Failed to pull image" in cluster.out("-n", namespace, "events", "--for", "pod/lost")


def test_taints_and_drain(cluster: Cluster, namespace: str) -> None:
    [node] = [n["metadata"]["name"] for n in cluster.get("nodes")["items"]]
    cluster.kubectl("-n", namespace, "create", "deployment", "web", f"--image={BOX}", "--", "sleep", "3600")
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=60s")
    try:
        cluster.kubectl("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data",
                        "--pod-selector=app=web", "--timeout=60s")  # fmt: skip
        assert "SchedulingDisabled" in cluster.out("get", "node", node)
        pending = eventually(
            lambda: [p for p in cluster.get("-n", namespace, "pods")["items"] if p["status"]["phase"] == "Pending"],
            "a pod that finds no node",
        )
        name = pending[0]["metadata"]["name"]
        message = eventually(lambda: _unscheduled(cluster, namespace, name), "the scheduler's word")
        assert "0/1 nodes are available: 1 node(s) were unschedulable" in message
    finally:
        cluster.kubectl("uncordon", node)
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("taint", "node", node, "own=test:NoSchedule")
    cluster.kubectl("taint", "node", node, "own:NoSchedule-")
    assert "not available" in cluster.kubectl("top", "nodes", check=False).stderr


def _unscheduled(cluster: Cluster, namespace: str, name: str) -> str:
    conditions = cluster.get("-n", namespace, "pod", name)["status"].get("conditions") or []
    return next((c["message"] for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), "")


def test_helm(cluster: Cluster, namespace: str) -> None:
    chart = cluster.directory.parent / "chart"
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: demo\nversion: 0.1.0\n")
    (chart / "values.yaml").write_text("colour: red\n")
    (chart / "templates" / "cm.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n"
        "data:\n  colour: {{ .Values.colour }}\n"
    )

    def colour() -> str:
        return str(cluster.get("-n", namespace, "configmap", "demo")["data"]["colour"])

    cluster.helm("install", "demo", str(chart), "-n", namespace, "--wait")
    assert colour() == "red"
    cluster.helm("upgrade", "demo", str(chart), "-n", namespace, "--set", "colour=green", "--wait")
    assert colour() == "green"
    cluster.helm("rollback", "demo", "1", "-n", namespace, "--wait")
    assert colour() == "red"
    assert "deployed" in cluster.helm("list", "-n", namespace)
    cluster.helm("uninstall", "demo", "-n", namespace)
    assert cluster.kubectl("-n", namespace, "get", "configmap", "demo", check=False).returncode != 0
