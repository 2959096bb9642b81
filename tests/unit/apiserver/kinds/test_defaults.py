import copy

import pytest

from berg.apiserver.registry.strategy import strategy_of
from berg.machinery.resources import builtin

from .writing import cells, context, made, read, strategy, update_faults

STORED = sorted({r.group_resource for r in builtin().all if "list" in r.verbs})


@pytest.mark.parametrize("kind", STORED)
def test_every_kind_takes_an_empty_object(kind):
    """Defaults do not fail on what little there is, and change nothing when they come again."""
    obj = made(kind)
    again = copy.deepcopy(obj)
    strategy(kind).default(again)
    assert again == obj


@pytest.mark.parametrize("kind", STORED)
def test_every_kind_can_be_shown(kind):
    obj = made(kind)
    s = strategy(kind)
    s.prepare_for_create(context(kind), obj)
    for name in cells(kind, obj):
        assert name
    labels = set(s.field_labels) | {"source"}  # events are selected by their core names in both groups
    assert set(s.selectable_fields(obj)) <= labels | {"metadata.name", "metadata.namespace"}


def test_every_kind_has_a_strategy_of_its_own():
    missing = {
        r.group_resource for r in builtin().all if "list" in r.verbs and strategy_of(r).__class__.__name__ == "Strategy"
    }
    assert missing <= {"customresourcedefinitions.apiextensions.k8s.io"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.2", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy_by_tag(image, policy):
    pod = made("pods", {"containers": [{"name": "c", "image": image}]})
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_a_pod():
    pod = made(
        "pods",
        """
        containers:
        - name: c
          image: i:1
          ports: [{containerPort: 80}]
          readinessProbe: {httpGet: {port: 80}}
          resources: {limits: {cpu: 1, memory: 64Mi}}
        volumes:
        - {name: s, secret: {secretName: s}}
        - {name: e}
        """,
    )
    assert pod["spec"] == read(
        """
        containers:
        - name: c
          image: i:1
          imagePullPolicy: IfNotPresent
          ports: [{containerPort: 80, protocol: TCP}]
          readinessProbe:
            httpGet: {port: 80, path: /, scheme: HTTP}
            failureThreshold: 3
            periodSeconds: 10
            successThreshold: 1
            timeoutSeconds: 1
          resources: {limits: {cpu: "1", memory: 64Mi}, requests: {cpu: "1", memory: 64Mi}}
          terminationMessagePath: /dev/termination-log
          terminationMessagePolicy: File
        dnsPolicy: ClusterFirst
        enableServiceLinks: true
        restartPolicy: Always
        schedulerName: default-scheduler
        securityContext: {}
        terminationGracePeriodSeconds: 30
        volumes:
        - {name: s, secret: {secretName: s, defaultMode: 420}}
        - {name: e, emptyDir: {}}
        """
    )
    strategy("pods").prepare_for_create(context("pods"), pod)
    assert pod["status"] == {"phase": "Pending", "qosClass": "Guaranteed"}


def test_a_deployment():
    spec = made("deployments.apps", "selector: {matchLabels: {a: b}}\ntemplate: {spec: {containers: []}}")["spec"]
    del spec["template"], spec["selector"]
    assert spec == {
        "progressDeadlineSeconds": 600,
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    }


def test_a_job_gets_its_selector():
    job = made("jobs.batch", "template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}")
    strategy("jobs.batch").prepare_for_create(context("jobs.batch"), job)
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert job["spec"]["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "x",
        "controller-uid": "u-1",
        "job-name": "x",
    }


def test_a_service():
    spec = made("services", "ports: [{port: 80}]")["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")


def test_string_data_becomes_data():
    secret = made("secrets", stringData={"a": "b"}, data={"c": "ZA=="})
    strategy("secrets").prepare_for_create(context("secrets"), secret)
    assert secret["data"] == {"a": "Yg==", "c": "ZA=="}
    assert "stringData" not in secret
    assert secret["type"] == "Opaque"


def test_a_status_does_not_come_by_the_main_door():
    s, ctx = strategy("deployments.apps"), context("deployments.apps")
    obj = made("deployments.apps", {"selector": {"matchLabels": {"a": "b"}}, "template": {}}, status={"replicas": 5})
    s.prepare_for_create(ctx, obj)
    assert obj["status"] == {}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {"status.currentHealthy": -1},
            ["status.currentHealthy: Invalid value: -1: must be greater than or equal to 0"],
        ),
        ({"status.currentHealthy": 1}, []),
    ],
)
def test_status_updates(change, wanted):
    budget = made("poddisruptionbudgets.policy", {"minAvailable": 1})
    assert update_faults("poddisruptionbudgets.policy", budget, change, "status") == wanted
