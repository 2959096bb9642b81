import pytest

from berg.kubelet.admission import admit

from .fakes import pod


def node(**labels):
    return {
        "metadata": {"name": "n1", "labels": labels},
        "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2", "ephemeral-storage": "10Gi"}},
    }


def asking(**requests):
    return pod(containers=[{"name": "c", "image": "i", "resources": {"requests": requests}}])


def test_what_fits_is_taken():
    assert admit(asking(cpu="2"), node(), []) is None


@pytest.mark.parametrize(
    ("one", "others", "reason", "message"),
    [
        (
            asking(cpu="3"),
            [],
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000",
        ),
        (
            asking(memory="1Gi"),
            [asking(memory="1Mi")],
            "OutOfmemory",
            "Node didn't have enough resource: memory, requested: 1073741824, used: 1048576, capacity: 1073741824",
        ),
        (
            pod(),
            [pod(), pod()],
            "OutOfpods",
            "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2",
        ),
        (
            pod(nodeSelector={"disk": "ssd"}),
            [],
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            pod(os={"name": "windows"}),
            [],
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
    ],
)
def test_what_is_refused(one, others, reason, message):
    refusal = admit(one, node(), others)
    assert (refusal.reason, refusal.message) == (reason, message)


def test_host_ports():
    def web(ip=""):
        return pod(containers=[{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}])

    assert admit(web(), node(), [web("1.1.1.1")]).reason == "NodePorts"
    assert admit(web("2.2.2.2"), node(), [web("1.1.1.1")]) is None


def test_taints_that_evict():
    n = node()
    n["spec"]["taints"] = [{"key": "k", "effect": "NoExecute"}, {"key": "x", "effect": "NoSchedule"}]
    assert admit(pod(), n, []).reason == "TaintToleration"
    assert admit(pod(tolerations=[{"key": "k", "operator": "Exists"}]), n, []) is None


def test_affinity():
    def affine(operator, values):
        terms = [{"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        return pod(affinity={"nodeAffinity": required})

    assert admit(affine("In", ["a"]), node(zone="a"), []) is None
    assert admit(affine("NotIn", ["a"]), node(zone="a"), []).reason == "NodeAffinity"
    assert admit(affine("Gt", ["4"]), node(zone="5"), []) is None
