"""Volumes behind claims, trust bundles, tokens: what the API says and what a pod gets."""

from datetime import timedelta

import pytest

from berg.kubelet.volumes.content import VolumeError
from berg.kubelet.volumes.persistent import PersistentVolumes
from berg.kubelet.volumes.tokens import TokenManager
from berg.kubelet.volumes.trust import join
from berg.machinery.clock import FakeClock, rfc3339
from berg.machinery.status import ApiError, not_found

from .fakes import pod

NODE = {"metadata": {"name": "n1", "labels": {"zone": "a"}}}
VOLUME = {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}


class Api:
    def __init__(self, **objects):
        self.objects = objects

    async def get(self, r, namespace, name):
        if name not in self.objects:
            raise not_found("", r.plural, name)
        return self.objects[name]


def claim(**status):
    return {
        "metadata": {"name": "claim", "uid": "c"},
        "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Bound", **status},
    }


def volume(**spec):
    return {"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": "c"}, **spec}}


async def setup(tmp_path, **objects):
    return await PersistentVolumes(Api(**objects), lambda: NODE).setup(pod(), VOLUME, tmp_path / "mount")


async def test_a_claim_leads_to_a_path(tmp_path):
    mounted = await setup(tmp_path, claim=claim(), pv=volume(hostPath={"path": str(tmp_path)}))
    assert (mounted.path, mounted.read_only) == (tmp_path, False)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (
            {},
            "error processing PVC ns/claim: failed to fetch PVC from API server: "
            'persistentvolumeclaims "claim" not found',
        ),
        ({"claim": claim(phase="Pending")}, "error processing PVC ns/claim: PVC is not bound"),
        (
            {"claim": claim(), "pv": volume(csi={"driver": "d"})},
            "driver name d not found in the list of registered CSI drivers",
        ),
        ({"claim": claim(), "pv": volume(local={"path": "/no/such/path"})}, 'path "/no/such/path" does not exist'),
        (
            {
                "claim": claim(),
                "pv": volume(
                    hostPath={"path": "/"},
                    nodeAffinity={
                        "required": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
                            ]
                        }
                    },
                ),
            },
            "node affinity doesn't match node",
        ),
        (
            {"claim": claim(), "pv": {"metadata": {}, "spec": {"claimRef": {"uid": "other"}}}},
            "error processing PVC ns/claim: PV pv spec.claimRef does not match the claim",
        ),
    ],
)
async def test_what_is_wrong_is_said(tmp_path, objects, message):
    with pytest.raises(VolumeError) as e:
        await setup(tmp_path, **objects)
    assert str(e.value) == message


def test_trust_bundles_are_joined_without_repetitions():
    a, b = (f"-----BEGIN CERTIFICATE-----\n{x}\n-----END CERTIFICATE-----" for x in "ab")
    assert join([f"{b}\n{a}\n", f"comment\n{b}"]) == f"{a}\n{b}\n"


class Tokens:
    def __init__(self, clock):
        self.clock = clock
        self.asked = []
        self.down = False

    async def create(self, r, request, namespace, *, name, subresource):
        if self.down:
            raise ApiError(503, "ServiceUnavailable", "down")
        self.asked.append((namespace, name, request["spec"]["audiences"]))
        seconds = request["spec"]["expirationSeconds"]
        expires = rfc3339(self.clock.now() + timedelta(seconds=seconds))
        return {"status": {"token": f"t{len(self.asked)}", "expirationTimestamp": expires}}


async def test_tokens_are_renewed_in_time():
    clock = FakeClock()
    api = Tokens(clock)
    manager = TokenManager(api, clock)
    one = pod(serviceAccountName="sa")
    source = {"expirationSeconds": 1000, "audience": "x"}
    assert await manager.get(one, source) == "t1"
    assert await manager.get(one, source) == "t1"
    assert api.asked == [("ns", "sa", ["x"])]
    assert manager.next_renewal("uid-p") == clock.now().timestamp() + 800
    await clock.advance(801)
    api.down = True
    assert await manager.get(one, source) == "t1"  # still good
    api.down = False
    assert await manager.get(one, source) == "t2"
    api.down = True
    await clock.advance(2000)
    with pytest.raises(ApiError):
        await manager.get(one, source)
