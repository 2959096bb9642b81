import base64

import orjson
import pytest

from berg.kubelet import credentials
from berg.kubelet.images import ImageManager, go_duration, with_default_tag
from berg.machinery.clock import FakeClock
from berg.runtime.cri import Code, CRIError

from .fakes import Events, FakeCRI, pod


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("nginx", "nginx:latest"),
        ("nginx:1", "nginx:1"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
    ],
)
def test_names(name, full):
    assert with_default_tag(name) == full


@pytest.mark.parametrize("name", ["", "Upper", "a//b", "a:", "-a", "a b"])
def test_wrong_names(name):
    with pytest.raises(ValueError, match="couldn't parse image name"):
        with_default_tag(name)


def test_durations():
    assert [go_duration(s) for s in (0.0524, 1.5, 65.2, 0)] == ["52ms", "1.5s", "1m5.2s", "0s"]


def secret(**auths):
    document = {
        "auths": {k.replace("__", "/"): {"auth": base64.b64encode(v.encode()).decode()} for k, v in auths.items()}
    }
    data = base64.b64encode(orjson.dumps(document)).decode()
    return {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}}


def test_credentials_are_found_by_repository():
    every = [
        credentials.Credential("docker.io", "hub"),
        credentials.Credential("*.example.org", "wild"),
        credentials.Credential("r.example.org/team", "team"),
        credentials.Credential("localhost:5000", "local"),
    ]
    assert [c.username for c in credentials.lookup("r.example.org/team/x:1", every)] == ["team", "wild"]
    assert [c.username for c in credentials.lookup("nginx", every)] == ["hub"]
    assert [c.username for c in credentials.lookup("localhost:5000/x", every)] == ["local"]
    assert credentials.lookup("example.org/x", every) == []


def test_secrets_of_both_types():
    assert credentials.from_secret(secret(a="u:p"))[0] == credentials.Credential("a", "u", "p")
    old = {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}
    data = {".dockercfg": base64.b64encode(orjson.dumps(old)).decode()}
    found = credentials.from_secret({"type": "kubernetes.io/dockercfg", "data": data})
    assert found == [credentials.Credential("index.docker.io", "u", "p")]
    assert credentials.lookup("nginx", found) == found
    assert credentials.from_secret({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "!"}}) == []


async def test_a_pull_tries_each_credential():
    clock = FakeClock()
    cri, events = FakeCRI(clock), Events()
    manager = ImageManager(cri, clock, events)
    c = {"name": "c", "image": "localhost:5000/x:1"}
    ref = await manager.ensure(pod(containers=[c]), c, [secret(**{"localhost:5000": "u:p"})], None)
    assert ref == "sha256:localhost:5000/x:1"
    assert cri.pulled_with == ["u"]
    assert events[0] == ("Normal", "Pulling", 'Pulling image "localhost:5000/x:1"')
    assert events[1][2] == (
        'Successfully pulled image "localhost:5000/x:1" in 0s (0s including waiting). Image size: 7 bytes.'
    )
    await manager.ensure(pod(containers=[c]), c, [], None)
    assert events[2][2] == (
        'Container image "localhost:5000/x:1" already present on machine and can be accessed by the pod'
    )


async def test_latest_is_always_pulled():
    clock = FakeClock()
    cri = FakeCRI(clock)
    await ImageManager(cri, clock, Events()).ensure(pod(), {"name": "c", "image": "busybox"}, [], None)
    assert cri.calls == ["pull_image busybox:latest"]


async def test_reasons_of_registries():
    clock = FakeClock()
    cri = FakeCRI(clock)
    cri.fail["pull_image"] = CRIError(Code.UNKNOWN, "RegistryUnavailable: down")
    with pytest.raises(Exception, match="image pull failed for x:1 because the registry is unavailable: down") as e:
        await ImageManager(cri, clock, Events()).ensure(pod(), {"name": "c", "image": "x:1"}, [], None)
    assert e.value.reason == "RegistryUnavailable"
