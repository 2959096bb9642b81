"""What upstream (v1.36.2) was seen to do with objects it takes, updates and statuses."""

import pytest

from berg.apiserver.kinds.core.pod_spec.app_armor import profiles_from_annotations
from berg.apiserver.kinds.core.pod_spec.overlaps import overlapping_files
from berg.apiserver.registry.conversions import autoscaling
from berg.apiserver.registry.shown import errors_as_go
from berg.machinery import names, schema
from berg.machinery.decode import WrongType
from berg.machinery.status import OMITTED, invalid_value

from .writing import context, faults, made, strategy, update_faults

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}


@pytest.mark.parametrize(
    ("check", "unit"),
    [
        (names.dns1123_label, "63 characters"),
        (names.dns1123_subdomain, "253 characters"),
        (names.dns1035_label, "63 characters"),
        (names.config_map_key, "253 characters"),
        (names.label_value, "63 bytes"),
    ],
)
def test_names_are_counted_in(check, unit):
    assert check("a" * 300) == [f"must be no more than {unit}"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2026-13-01T00:00:00Z", 'parsing time "2026-13-01T00:00:00Z": month out of range'),
        ("2026-02-30T00:00:00Z", 'parsing time "2026-02-30T00:00:00Z": day out of range'),
        ("2026-01-01T25:00:00Z", 'parsing time "2026-01-01T25:00:00Z": hour out of range'),
        ("2026-01-01T00:00:00+99:00", 'parsing time "2026-01-01T00:00:00+99:00": time zone offset hour out of range'),
        (5, "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"),
    ],
)
def test_times(value, said):
    with pytest.raises(WrongType) as e:
        schema.decode(schema.type_of("", "v1", "ConfigMap"), {"metadata": {"creationTimestamp": value}})
    assert str(e.value) == said


def test_a_micro_time_has_six_digits():
    with pytest.raises(WrongType) as e:
        type_ = schema.type_of("coordination.k8s.io", "v1", "Lease")
        schema.decode(type_, {"spec": {"renewTime": "2026-01-01T00:00:00.5Z"}})
    assert str(e.value).endswith('"2006-01-02T15:04:05.000000Z07:00": cannot parse ".5Z" as ".000000"')


def test_refused_structs_read_as_go_prints_them():
    type_ = schema.type_of("apps", "v1", "Deployment")
    strategy_ = {"type": "Odd", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}
    selector = {"matchExpressions": [{"operator": "In", "key": "a", "values": ["b"]}], "matchLabels": {"a": "b"}}
    shown = errors_as_go(
        type_, [invalid_value("spec.strategy", strategy_, "no"), invalid_value("spec.selector", selector, "no")]
    )
    assert [str(e) for e in shown] == [
        'spec.strategy: Invalid value: {"Type":"Odd","RollingUpdate":{"MaxUnavailable":"25%","MaxSurge":1}}: no',
        'spec.selector: Invalid value: {"matchLabels":{"a":"b"},'
        '"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}: no',
    ]


def test_values_may_be_omitted():
    assert str(invalid_value("spec", OMITTED, "no")) == "spec: Invalid value: no"


def test_a_template_without_labels_is_told_as_null():
    obj = made("replicasets.apps", {**WORKLOAD, "template": {"spec": TEMPLATE["spec"]}})
    (fault,) = faults("replicasets.apps", obj)
    assert fault == "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`"


STATUSES = [
    (
        "deployments.apps",
        {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "collisionCount": 3},
        {"status.collisionCount": 1},
        ["status.collisionCount: Invalid value: 1: cannot be decremented"],
    ),
    (
        "daemonsets.apps",
        {"numberReady": 1},
        {"status.numberReady": -1},
        ["status.numberReady: Invalid value: -1: must be greater than or equal to 0"],
    ),
]


@pytest.mark.parametrize(("kind", "status", "change", "wanted"), STATUSES)
def test_statuses(kind, status, change, wanted):
    old = made(kind, WORKLOAD)
    strategy(kind).prepare_for_create(context(kind), old)
    old["status"] = status
    new = {**old, "status": dict(status)}
    for path, value in change.items():
        new["status"][path.removeprefix("status.")] = value
    s = strategy(kind)
    assert [str(e) for e in s.validate_status_update(context(kind, "status"), new, old)] == wanted


@pytest.mark.parametrize(
    ("kind", "ingress", "wanted"),
    [
        (
            "ClusterIP",
            {"ip": "1.2.3.4", "ipMode": "VIP"},
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
        ),
        (
            "LoadBalancer",
            {"ipMode": "VIP"},
            ["status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set"],
        ),
        (
            "LoadBalancer",
            {"hostname": "1.2.3.4"},
            [
                'status.loadBalancer.ingress[0].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP '
                "address"
            ],
        ),
    ],
)
def test_load_balancers(kind, ingress, wanted):
    service = made("services", {"type": kind, "ports": [{"port": 80}]})
    new = {**service, "status": {"loadBalancer": {"ingress": [ingress]}}}
    found = strategy("services").validate_status_update(context("services", "status"), new, service)
    assert [str(e) for e in found] == wanted


def test_a_job_takes_the_labels_of_its_template():
    job = made("jobs.batch", {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never"}}})
    assert job["metadata"]["labels"] == {"a": "b"}
    strategy("jobs.batch").prepare_for_create(context("jobs.batch"), job)
    assert job["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "x"


def test_a_job_keeps_labels_of_its_own():
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never"}}
    job = made("jobs.batch", {"template": template}, metadata={"labels": {"a": "b"}})
    strategy("jobs.batch").prepare_for_create(context("jobs.batch"), job)
    assert job["metadata"]["labels"] == {"a": "b"}


def test_pod_cidrs_come_in_one_and_in_many():
    assert made("nodes", {"podCIDR": "10.0.0.0/24"})["spec"]["podCIDRs"] == ["10.0.0.0/24"]
    assert made("nodes", {"podCIDRs": ["10.0.0.0/24"]})["spec"]["podCIDR"] == "10.0.0.0/24"


def test_app_armor_annotations_become_fields():
    spec = {"containers": [{"name": "c"}, {"name": "d"}]}
    prefix = "container.apparmor.security.beta.kubernetes.io/"
    warnings = list(profiles_from_annotations(spec, {f"{prefix}c": "unconfined", f"{prefix}d": "odd"}))
    assert spec["containers"] == [
        {"name": "c", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
        {"name": "d"},
    ]
    assert warnings == [
        f'metadata.annotations[{prefix}{name}]: deprecated since v1.30; use the "appArmorProfile" field instead'
        for name in "cd"
    ]


def test_metrics_of_the_first_autoscaler():
    """Its annotation, as upstream wrote it for the same object."""
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    external = {
        "type": "External",
        "external": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    }
    rules = {"scaleUp": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max"}}
    obj = {"metadata": {}, "spec": {"metrics": [cpu, external], "behavior": rules}}
    autoscaling.to_v1(obj)
    prefix = "autoscaling.alpha.kubernetes.io/"
    assert obj["metadata"]["annotations"] == {
        f"{prefix}metrics": '[{"type":"External","external":{"metricName":"m","targetAverageValue":"1"}}]',
        f"{prefix}behavior": '{"ScaleUp":{"StabilizationWindowSeconds":5,"SelectPolicy":"Max"}}',
    }
    assert obj["spec"] == {"targetCPUUtilizationPercentage": 50}
    autoscaling.to_v2(obj)
    assert obj["spec"] == {"metrics": [external, cpu], "behavior": rules}


def test_suspended_jobs_may_change_what_their_template_is_called():
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    job = made("jobs.batch", {"suspend": True, "template": {"spec": pod}})
    assert update_faults("jobs.batch", job, {"spec.template.metadata.name": "x"}) == []
    (fault,) = update_faults("jobs.batch", job, {"spec.template.spec.hostname": "x"})
    assert fault.startswith("spec.template.spec: Invalid value: ")
    assert fault.endswith(": field is immutable")


def test_files_upon_each_other():
    items = {"items": [{"key": "k", "path": "p"}, {"key": "l", "path": "p/q"}]}
    projected = {"sources": [{"secret": {"name": "s", **items}}, {}]}
    volumes = [{"name": "cm", "configMap": {"name": "cm", **items}}, {"name": "all", "projected": projected}]
    assert list(overlapping_files(volumes)) == [
        'volume "cm" (ConfigMap "cm"): overlapping paths: "p/q" with "p"',
        'volume "all" (Projected) has no sources provided',
        'volume "all" (Projected): overlapping paths: "p/q" (Secret "s") with "p" (Secret "s")',
    ]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"podIP": "10.0.0.1"}, {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}),
        ({"podIPs": [{"ip": "10.0.0.1"}]}, {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}),
        ({"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.1"}]}, {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}),
    ],
)
def test_the_older_address_of_a_pod_leads(given, stored):
    pod = {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": given}
    strategy("pods").default(pod)
    assert pod["status"] == stored


@pytest.mark.parametrize(
    ("before", "after", "said"), [(None, -1, []), (3, None, [0]), (3, 2, [2]), (3, 3, []), (3, 4, [])]
)
def test_collisions_are_not_counted_down(before, after, said):
    said = [f"status.collisionCount: Invalid value: {n}: cannot be decremented" for n in said]
    old = {"kind": "Deployment", "status": {"collisionCount": before}}
    errors = strategy("deployments.apps").validate_status_update(
        context("deployments.apps", "status"), {"kind": "Deployment", "status": {"collisionCount": after}}, old
    )
    assert [str(e) for e in errors if "decremented" in str(e)] == said


def test_conditions_of_a_taint_rule():
    rule = {"status": {"conditions": [{"type": "A", "status": "Odd", "reason": "R", "lastTransitionTime": "t"}] * 9}}
    rules = strategy("devicetaintrules.resource.k8s.io")
    errors = rules.validate_status_update(context("devicetaintrules.resource.k8s.io", "status"), rule, {})
    assert [str(e) for e in errors[:2]] == [
        'status.conditions[0].status: Unsupported value: "Odd": supported values: "False", "True", "Unknown"',
        'status.conditions[1].type: Duplicate value: "A"',
    ]
    assert str(errors[-1]) == "status.conditions: Too many: 9: must have at most 8 items"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gmsaCredentialSpecName": "A"}, ["gmsaCredentialSpecName"]),
        ({"gmsaCredentialSpec": ""}, ["gmsaCredentialSpec"]),
        ({"runAsUserName": "a\\b\\c"}, ["runAsUserName"]),
        ({"runAsUserName": ".dom\\.."}, ["runAsUserName", "runAsUserName"]),
        ({"runAsUserName": "NT AUTHORITY\\SYSTEM"}, []),
    ],
)
def test_windows_options(options, said):
    found = faults("pods", made("pods", {"containers": [{"name": "c", "image": "i"}], **_windows(options)}))
    assert [f.split(":")[0].rpartition(".")[2] for f in found] == said


def _windows(options):
    return {"os": {"name": "windows"}, "securityContext": {"windowsOptions": options}}


def test_host_processes_are_all_or_none_and_in_the_hosts_network():
    options = {"windowsOptions": {"hostProcess": True}}
    containers = [{"name": "c", "image": "i", "securityContext": options}, {"name": "d", "image": "i"}]
    spec = {"os": {"name": "windows"}, "containers": containers}
    assert faults("pods", made("pods", spec)) == [
        'spec: Invalid value: "": If pod contains any hostProcess containers then all containers must be HostProcess '
        "containers",
        "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
    ]
    spec |= {"hostNetwork": True, **_windows({"hostProcess": False})}
    assert faults("pods", made("pods", spec))[0] == (
        "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: true: pod hostProcess value "
        "must be identical if both are specified, was false"
    )


def test_a_volumes_affinity_may_only_follow_its_labels():
    def spec(key):
        terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]
        nfs = {"server": "s", "path": "/p"}
        volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "nfs": nfs}
        return {**volume, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}

    old = made("persistentvolumes", spec(BETA_ZONE))
    assert update_faults("persistentvolumes", old, {"spec": spec("topology.kubernetes.io/zone")}) == []
    (fault,) = update_faults("persistentvolumes", old, {"spec": spec("topology.kubernetes.io/region")})
    assert fault.endswith("field is immutable, except for updating from beta label to GA")


BETA_ZONE = "failure-domain.beta.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("kind", "obj", "said"),
    [
        (
            "pods",
            {
                "spec": {
                    "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostIP": "1.2.3.4"}]}]
                }
            },
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP "
            "HostIP:1.2.3.4}",
        ),
        (
            "persistentvolumes",
            {"spec": {"storageos": {}}},
            "spec.storageOS: deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "runtimeclasses.node.k8s.io",
            {"scheduling": {"nodeSelector": {BETA_ZONE: "z"}}},
            'scheduling.nodeSelector: deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
        ),
        (
            "storageclasses.storage.k8s.io",
            {"allowedTopologies": [{"matchLabelExpressions": [{"key": BETA_ZONE, "values": ["z"]}]}]},
            "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use "
            '"topology.kubernetes.io/zone" instead',
        ),
        (
            "csistoragecapacities.storage.k8s.io",
            {"nodeTopology": {"matchLabels": {BETA_ZONE: "z"}}},
            f'nodeTopology.matchLabels.{BETA_ZONE}: deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
        ),
        (
            "networkpolicies.networking.k8s.io",
            {"spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/8"}}]}]}},
            'spec.egress[0].to[0].ipBlock.cidr: CIDR value "10.1.2.3/8" is ambiguous in this context (should be '
            '"10.0.0.0/8" or "10.1.2.3/32"?)',
        ),
        (
            "jobs.batch",
            {
                "spec": {
                    "completionMode": "Indexed",
                    "completions": 100_001,
                    "parallelism": 10_001,
                    "template": {"spec": {"restartPolicy": "Never", "containers": []}},
                }
            },
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
            "Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
        ),
    ],
)
def test_warnings(kind, obj, said):
    assert said in list(strategy(kind).warnings(context(kind), made(kind, **obj), None))


def test_an_empty_probe_has_defaults_and_a_negative_grace_period_is_a_second():
    spec = {"containers": [{"name": "c", "image": "i", "livenessProbe": {}}], "terminationGracePeriodSeconds": -5}
    pod = made("pods", spec)
    assert pod["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] == 10
    assert pod["spec"]["terminationGracePeriodSeconds"] == 1
