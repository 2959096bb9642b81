import pytest

from .writing import context, faults, made, put, strategy, update_faults

POD = """
containers:
- name: c
  image: nginx
"""
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def pod(**change):
    obj = made("pods", POD)
    for path, value in change.items():
        put(obj, path.replace("__", "."), value)
    strategy("pods").default(obj)
    return obj


TABLE = [
    ({"spec__containers": []}, ["spec.containers: Required value"]),
    ({"spec__containers__0__name": ""}, ["spec.containers[0].name: Required value"]),
    ({"spec__containers__0__name": "C"}, [f'spec.containers[0].name: Invalid value: "C": {LABEL}']),
    ({"spec__containers__0__image": ""}, ["spec.containers[0].image: Required value"]),
    (
        {"spec__containers__0__image": " x"},
        ['spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace'],
    ),
    (
        {"spec__containers__0__imagePullPolicy": "Sometimes"},
        [
            'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": '
            'supported values: "Always", "IfNotPresent", "Never"'
        ],
    ),
    (
        {"spec__containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]},
        ['spec.containers[1].name: Duplicate value: "c"'],
    ),
    (
        {"spec__containers__0__ports": [{"containerPort": 0}]},
        ["spec.containers[0].ports[0].containerPort: Required value"],
    ),
    (
        {"spec__containers__0__ports": [{"containerPort": 70000}]},
        ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    ),
    (
        {"spec__containers__0__ports": [{"containerPort": 80, "protocol": "ICMP"}]},
        ['spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
    ),
    (
        {
            "spec__containers__0__env": [
                {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ]
        },
        ['spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'],
    ),
    (
        {"spec__containers__0__volumeMounts": [{"name": "v", "mountPath": "/x"}]},
        ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
    ),
    (
        {"spec__containers__0__resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
        ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
    ),
    (
        {"spec__containers__0__livenessProbe": {"periodSeconds": 5}},
        ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    ),
    (
        {"spec__containers__0__livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}},
        ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    ),
    (
        {"spec__volumes": [{"name": "v"}, {"name": "v", "emptyDir": {}}]},
        ['spec.volumes[1].name: Duplicate value: "v"'],
    ),
    (
        {"spec__volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]},
        ["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
    ),
    (
        {"spec__restartPolicy": "Maybe"},
        ['spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"'],
    ),
    (
        {"spec__activeDeadlineSeconds": 0},
        ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    ),
    (
        {"spec__tolerations": [{"operator": "Exists", "key": "a", "value": "b"}]},
        ["spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"],
    ),
    (
        {"spec__containers__0__securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
        [
            "spec.containers[0].securityContext: Invalid value: "
            "null: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        ],
    ),
    (
        {
            "spec__initContainers": [
                {"name": "i", "image": "x", "lifecycle": {"postStart": {"exec": {"command": ["a"]}}}}
            ]
        },
        [
            "spec.initContainers[0].lifecycle: Forbidden: "
            "may not be set for init containers without restartPolicy=Always"
        ],
    ),
    (
        {"spec__schedulingGates": [{"name": "a/b"}], "spec__nodeName": "n"},
        ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
    ),
]


@pytest.mark.parametrize(("change", "wanted"), TABLE, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")
def test_creation(change, wanted):
    found = faults("pods", pod(**change))
    if wanted and "securityContext: Invalid" in wanted[0]:
        assert found[0].startswith("spec.containers[0].securityContext: Invalid value: ")
        assert found[0].endswith("cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        return
    assert found == wanted


def test_a_plain_pod_is_good():
    assert faults("pods", pod()) == []


def test_what_may_change():
    old = pod()
    assert update_faults("pods", old, {"spec.containers.0.image": "other"}) == []
    assert update_faults("pods", old, {"spec.tolerations": [{"key": "a", "operator": "Exists"}]}) == []
    assert update_faults("pods", old, {"spec.activeDeadlineSeconds": 5}) == []
    assert update_faults("pods", old, {"metadata.labels": {"a": "b"}}) == []


def test_what_may_not_change():
    (fault,) = update_faults("pods", pod(), {"spec.restartPolicy": "Never"})
    assert fault == (
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
        '@@ -35,7 +35,7 @@\n   }\n  ],\n  "EphemeralContainers": null,\n- "RestartPolicy": "Always",\n'
        '+ "RestartPolicy": "Never",\n  "TerminationGracePeriodSeconds": 30,\n'
        '  "ActiveDeadlineSeconds": null,\n  "DNSPolicy": "ClusterFirst",\n'
    )
    assert update_faults(
        "pods", pod(), {"spec.containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]}
    ) == ["spec.containers: Forbidden: pod updates may not add or remove containers"]


def test_warnings():
    obj = pod(
        spec__nodeSelector={"beta.kubernetes.io/os": "linux"},
        spec__imagePullSecrets=[{"name": ""}, {"name": "a"}, {"name": "a"}],
        spec__containers__0__ports=[{"containerPort": 80}, {"containerPort": 80, "name": "x"}],
    )
    assert list(strategy("pods").warnings(context("pods"), obj, None)) == [
        'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
        'spec.imagePullSecrets[2].name: duplicate name "a"',
        'spec.imagePullSecrets[0].name: invalid empty name ""',
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
    ]
