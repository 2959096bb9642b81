"""Kind, spec, and what upstream says of it."""

import pytest

from .writing import faults, made, update_faults

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
JOB = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
AFFINITY = "spec.template.metadata.labels: Invalid value: "

SPECS = [
    ("deployments.apps", WORKLOAD, []),
    (
        "deployments.apps",
        {**WORKLOAD, "replicas": -1},
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    ),
    (
        "deployments.apps",
        {"template": TEMPLATE, "selector": {}},
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    ),
    (
        "deployments.apps",
        {**WORKLOAD, "selector": {"matchLabels": {"a": "c"}}},
        [AFFINITY + '{"a":"b"}: `selector` does not match template `labels`'],
    ),
    (
        "deployments.apps",
        {**WORKLOAD, "strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
        ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    ),
    (
        "deployments.apps",
        {**WORKLOAD, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    ),
    (
        "daemonsets.apps",
        {**WORKLOAD, "updateStrategy": {"type": "Sometimes"}},
        ['spec.updateStrategy: Unsupported value: {"type":"Sometimes"}: supported values: "RollingUpdate", "OnDelete"'],
    ),
    (
        "statefulsets.apps",
        {**WORKLOAD, "podManagementPolicy": "Any"},
        ["spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'"],
    ),
    ("jobs.batch", JOB, []),
    (
        "jobs.batch",
        {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
        ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
    ),
    (
        "jobs.batch",
        {**JOB, "parallelism": -1},
        ["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
    ),
    (
        "jobs.batch",
        {**JOB, "parallelism": 2, "completionMode": "Indexed"},
        ["spec.completions: Required value: when completion mode is Indexed"],
    ),
    (
        "cronjobs.batch",
        {"schedule": "bla", "jobTemplate": {"spec": JOB}},
        ['spec.schedule: Invalid value: "bla": expected exactly 5 fields, found 1: [bla]'],
    ),
    ("cronjobs.batch", {"schedule": "", "jobTemplate": {"spec": JOB}}, ["spec.schedule: Required value"]),
    (
        "cronjobs.batch",
        {"schedule": "* * * * *", "timeZone": "Nowhere/Else", "jobTemplate": {"spec": JOB}},
        ['spec.timeZone: Invalid value: "Nowhere/Else": unknown time zone Nowhere/Else'],
    ),
    (
        "cronjobs.batch",
        {"schedule": "* * * * *", "concurrencyPolicy": "X", "jobTemplate": {"spec": JOB}},
        ['spec.concurrencyPolicy: Unsupported value: "X": supported values: "Allow", "Forbid", "Replace"'],
    ),
    ("services", {"ports": [{"port": 80}]}, []),
    ("services", {"ports": []}, ["spec.ports: Required value"]),
    (
        "services",
        {"ports": [{"port": 0}]},
        [
            f"spec.ports[0].{key}: Invalid value: 0: must be between 1 and 65535, inclusive"
            for key in ("port", "targetPort")
        ],
    ),
    ("services", {"type": "ExternalName"}, ["spec.externalName: Required value"]),
    (
        "services",
        {"ports": [{"port": 80}, {"port": 81}]},
        ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    ),
    (
        "services",
        {"ports": [{"port": 80}], "sessionAffinity": "X"},
        ['spec.sessionAffinity: Unsupported value: "X": supported values: "ClientIP", "None"'],
    ),
    (
        "services",
        {"ports": [{"port": 80, "nodePort": 30000}]},
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    ),
    (
        "persistentvolumeclaims",
        {},
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    ),
    (
        "persistentvolumes",
        {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
        ["spec: Required value: must specify a volume type"],
    ),
    (
        "ingresses.networking.k8s.io",
        {},
        ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    ),
    (
        "ingresses.networking.k8s.io",
        {"rules": [{"host": "1.2.3.4", "http": {"paths": [{"path": "a", "pathType": "Prefix", "backend": {}}]}}]},
        [
            'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
            'spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path',
            'spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required',
        ],
    ),
    (
        "ingressclasses.networking.k8s.io",
        {"controller": "plain"},
        ['spec.controller: Invalid value: "plain": must be a domain-prefixed path (such as "acme.io/foo")'],
    ),
    (
        "networkpolicies.networking.k8s.io",
        {"podSelector": {}, "ingress": [{"from": [{}], "ports": [{"endPort": 5}]}]},
        [
            "spec.ingress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is not specified",
            "spec.ingress[0].from[0]: Required value: must specify a peer",
        ],
    ),
    (
        "networkpolicies.networking.k8s.io",
        {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]},
        ['spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`'],
    ),
    (
        "horizontalpodautoscalers.autoscaling",
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "minReplicas": 3,
            "maxReplicas": 2,
        },
        ["spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"],
    ),
    (
        "horizontalpodautoscalers.autoscaling",
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 2,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}],
        },
        [
            "spec.metrics[0].resource.target.averageUtilization: Required value: "
            "must set either a target raw value or a target utilization"
        ],
    ),
    (
        "poddisruptionbudgets.policy",
        {"minAvailable": "120%"},
        ['spec.minAvailable: Invalid value: "120%": must not be greater than 100%'],
    ),
    (
        "limitranges",
        {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]},
        [
            'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
            'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": '
            "min value 2 is greater than default request value 1",
            'spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1',
        ],
    ),
    (
        "resourcequotas",
        {"hard": {"nonsense": "1", "pods": "-1"}},
        [
            'spec.hard[nonsense]: Invalid value: "nonsense": must be a standard resource type or fully qualified',
            'spec.hard[nonsense]: Invalid value: "nonsense": must be a standard resource for quota',
            'spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0',
        ],
    ),
    (
        "resourcequotas",
        {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]},
        ['spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes'],
    ),
    (
        "nodes",
        {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]},
        [
            'metadata.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: '
            "taints must be unique by key and effect pair"
        ],
    ),
]


def _id(value):
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("kind", "spec", "wanted"), SPECS, ids=_id)
def test_specs(kind, spec, wanted):
    assert faults(kind, made(kind, spec)) == wanted


KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
OBJECTS = [
    ("configmaps", {"data": {"a": "b"}}, []),
    (
        "configmaps",
        {"data": {"a": "b"}, "binaryData": {"a": "Yg=="}},
        ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
    ),
    ("secrets", {"type": "kubernetes.io/tls"}, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
    (
        "roles.rbac.authorization.k8s.io",
        {"rules": [{"verbs": ["get"]}]},
        [
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ],
    ),
    (
        "rolebindings.rbac.authorization.k8s.io",
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "X", "name": "r"}},
        ['roleRef.kind: Unsupported value: "X": supported values: "Role", "ClusterRole"'],
    ),
    ("storageclasses.storage.k8s.io", {}, ["provisioner: Required value"]),
    (
        "priorityclasses.scheduling.k8s.io",
        {"value": 2000000000},
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    ),
    (
        "endpointslices.discovery.k8s.io",
        {"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]},
        [
            'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": '
            "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        ],
    ),
    (
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        {
            "webhooks": [
                {
                    "name": "a.b.c",
                    "clientConfig": {"url": "http://x"},
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                }
            ]
        },
        [
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
            "desired format: https://host[/path]"
        ],
    ),
    (
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        {"webhooks": [{"name": "a", "clientConfig": {}}]},
        [
            'webhooks[0].name: Invalid value: "a": should be a domain with at least three segments separated by dots',
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ],
    ),
    ("runtimeclasses.node.k8s.io", {"handler": ""}, ["handler: Required value"]),
    (
        "events",
        {"involvedObject": {"kind": "Pod", "namespace": "other"}},
        ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
    ),
]


@pytest.mark.parametrize(("kind", "body", "wanted"), OBJECTS, ids=_id)
def test_objects(kind, body, wanted):
    assert faults(kind, made(kind, **body)) == wanted


UPDATES = [
    ("deployments.apps", {"spec": WORKLOAD}, {"spec.replicas": 3}, []),
    (
        "jobs.batch",
        {"spec": JOB},
        {"spec.completions": 5},
        ["spec.completions: Invalid value: 5: field is immutable"],
    ),
    (
        "statefulsets.apps",
        {"spec": WORKLOAD},
        {"spec.serviceName": "other"},
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' "
            "are forbidden"
        ],
    ),
    (
        "configmaps",
        {"data": {"a": "b"}, "immutable": True},
        {"data.a": "c"},
        ["data: Forbidden: field is immutable when `immutable` is set"],
    ),
    ("secrets", {"type": "a"}, {"type": "b"}, ['type: Invalid value: "b": field is immutable']),
    (
        "rolebindings.rbac.authorization.k8s.io",
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}},
        {"roleRef.name": "s"},
        [
            'roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"s"}: '
            "cannot change roleRef"
        ],
    ),
    (
        "storageclasses.storage.k8s.io",
        {"provisioner": "a/b", "parameters": {"a": "b"}},
        {"parameters.a": "c"},
        ['parameters: Invalid value: {"a":"c"}: field is immutable'],
    ),
    (
        "nodes",
        {"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}},
        {"spec.podCIDRs": ["10.0.1.0/24"], "spec.podCIDR": "10.0.1.0/24"},
        ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'],
    ),
]


@pytest.mark.parametrize(("kind", "body", "change", "wanted"), UPDATES, ids=_id)
def test_updates(kind, body, change, wanted):
    assert update_faults(kind, made(kind, **body), change) == wanted


MATCH = {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}
POLICIES = "validatingadmissionpolicies.admissionregistration.k8s.io"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("object.spec.containers.all(c, c.name != request.name)", ""),
        ("has(object.a) ? type(object.a) == string : [1].exists(x, x in variables.y)", ""),
        (
            "objct.spec == 1",
            "undeclared reference to 'objct' (in container '')\n | objct.spec == 1\n | ^",
        ),
        ("... [] bad expression", "Syntax error: no viable alternative at input '..'"),
    ],
)
def test_expressions_compile(text, wanted):
    variables = [{"name": "y", "expression": "[1]"}]
    spec = {"matchConstraints": MATCH, "variables": variables, "validations": [{"expression": text}]}
    found = faults(POLICIES, made(POLICIES, spec))
    if not wanted:
        assert found == []
    else:
        (fault,) = found
        assert fault.startswith("spec.validations[0].expression: Invalid value: ")
        assert "compilation failed: " in fault
        assert wanted in fault
