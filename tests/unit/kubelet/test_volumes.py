"""Files of volumes: atomic updates, modes, what comes from where; and subPaths that stay inside."""

import asyncio
import base64
import os
import stat
from datetime import UTC, datetime

import pytest

from berg.kubelet import mounts
from berg.kubelet.config import KubeletConfig
from berg.kubelet.downward import PodFacts
from berg.kubelet.volumes import atomic, content, local
from berg.kubelet.volumes.atomic import File
from berg.kubelet.volumes.manager import Hooks, VolumeManager
from berg.machinery.clock import FakeClock
from berg.machinery.status import not_found

from .fakes import Events, pod

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def files(**data):
    return {k: File(v.encode(), 0o640) for k, v in data.items()}


def visible(path):
    return {f.name: f.read_text() for f in path.iterdir() if not f.name.startswith("..")}


def test_an_update_is_one_rename(tmp_path):
    assert atomic.write(tmp_path, files(a="1", b="2"), NOW)
    assert visible(tmp_path) == {"a": "1", "b": "2"}
    first = os.readlink(tmp_path / "..data")
    assert not atomic.write(tmp_path, files(a="1", b="2"), NOW)
    assert os.readlink(tmp_path / "..data") == first
    assert atomic.write(tmp_path, files(a="new", c="3"), NOW)
    assert visible(tmp_path) == {"a": "new", "c": "3"}
    assert not (tmp_path / first).exists()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert os.readlink(tmp_path / "a") == "..data/a"


def test_nested_paths(tmp_path):
    atomic.write(tmp_path, {"d/e/f": File(b"x", 0o644)}, NOW)
    assert (tmp_path / "d" / "e" / "f").read_text() == "x"
    assert os.readlink(tmp_path / "d") == "..data/d"


@pytest.mark.parametrize("path", ["/abs", "../x", "a/../b", "..x", ""])
def test_paths_that_are_refused(path):
    with pytest.raises(ValueError, match="invalid path"):
        atomic.check_path(path)


class Objects:
    def __init__(self, **found):
        self.found = found

    async def get(self, kind, namespace, name):
        if name not in self.found:
            raise not_found("", kind.lower(), name)
        return self.found[name]


def context(objects, one=None):
    async def token(pod, source):
        return f"token for {source.get('audience', '')}"

    async def bundle(source):
        return "PEM"

    facts = PodFacts(("10.0.0.9",), ("192.0.2.1",), "n1", {"cpu": "4", "memory": "8Gi"})
    return content.Context(one or pod(), objects, token, bundle, facts)


async def test_config_maps_and_secrets():
    objects = Objects(
        cm={"data": {"a": "1"}, "binaryData": {"b": base64.b64encode(b"\xff").decode()}},
        s={"data": {"k": base64.b64encode(b"v").decode()}},
    )
    c = context(objects)
    got = await content.of_volume({"configMap": {"name": "cm"}}, c)
    assert {k: (v.data, v.mode) for k, v in got.items()} == {"a": (b"1", 0o644), "b": (b"\xff", 0o644)}
    items = [{"key": "k", "path": "x/y", "mode": 0o400}]
    got = await content.of_volume({"secret": {"secretName": "s", "items": items}}, c)
    assert got == {"x/y": File(b"v", 0o400)}
    with pytest.raises(content.VolumeError, match='configmap "gone" not found'):
        await content.of_volume({"configMap": {"name": "gone"}}, c)
    assert await content.of_volume({"configMap": {"name": "gone", "optional": True}}, c) == {}
    missing = {"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}
    with pytest.raises(content.VolumeError, match="configmap references non-existent config key: z"):
        await content.of_volume(missing, c)
    missing["configMap"]["optional"] = True
    assert await content.of_volume(missing, c) == {}


async def test_projected_volumes():
    one = pod(securityContext={"runAsUser": 7})
    one["metadata"]["labels"] = {"b": "2", "a": 'q"'}
    volume = {
        "projected": {
            "defaultMode": 0o600,
            "sources": [
                {"serviceAccountToken": {"path": "token", "audience": "x"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"clusterTrustBundle": {"path": "ca"}},
            ],
        }
    }
    got = await content.of_volume(volume, context(Objects(), one))
    assert got["token"] == File(b"token for x", 0o600, 7)
    assert got["labels"].data == b'a="q\\""\nb="2"'
    assert got["ca"].data == b"PEM"


class Rig:
    def __init__(self, tmp_path, objects):
        self.clock = FakeClock()
        self.events = Events()
        config = KubeletConfig(root_dir=str(tmp_path))
        hooks = Hooks(context=lambda one: context(objects, one), event=self.events)
        self.manager = VolumeManager(config, self.clock, hooks, {})


async def test_mounting_waits_for_what_is_missing(tmp_path):
    objects = Objects()
    rig = Rig(tmp_path, objects)
    one = pod(volumes=[{"name": "v", "configMap": {"name": "cm"}}])
    task = asyncio.ensure_future(rig.manager.mount(one))
    await rig.clock.advance(0.4)
    assert not task.done()
    assert rig.events[0][2] == 'MountVolume.SetUp failed for volume "v" : configmap "cm" not found'
    objects.found["cm"] = {"data": {"a": "1"}}
    rig.manager.objects_changed("uid-p")
    mounted = await task
    assert (mounted["v"].path / "a").read_text() == "1"
    assert mounted["v"].read_only
    objects.found["cm"] = {"data": {"a": "2"}}
    await rig.manager.refresh(one)
    assert (mounted["v"].path / "a").read_text() == "2"
    await rig.manager.unmount("uid-p")
    assert not (tmp_path / "pods" / "uid-p").exists()


async def test_what_never_comes_is_told(tmp_path):
    rig = Rig(tmp_path, Objects())
    task = asyncio.ensure_future(rig.manager.mount(pod(volumes=[{"name": "v", "configMap": {"name": "cm"}}])))
    for _ in range(20):
        await rig.clock.advance(30)
    with pytest.raises(content.VolumeError, match=r"unmounted volumes=\[v\]"):
        await task


async def test_empty_directories_are_for_everyone(tmp_path):
    rig = Rig(tmp_path, Objects())
    mounted = await rig.manager.mount(pod(volumes=[{"name": "v", "emptyDir": {}}]))
    assert stat.S_IMODE(mounted["v"].path.stat().st_mode) == 0o777


def test_host_paths_are_checked(tmp_path):
    assert local.host_path({"path": str(tmp_path / "new"), "type": "DirectoryOrCreate"}).is_dir()
    assert local.host_path({"path": str(tmp_path / "file"), "type": "FileOrCreate"}).is_file()
    with pytest.raises(content.VolumeError, match=r"hostPath type check failed: .* is not a socket"):
        local.host_path({"path": str(tmp_path / "file"), "type": "Socket"})
    with pytest.raises(content.VolumeError, match="is not a directory"):
        local.host_path({"path": str(tmp_path / "gone"), "type": "Directory"})


def test_a_subpath_is_made_inside(tmp_path):
    fd = mounts.open_beneath(tmp_path, "a/b", create=True)
    os.close(fd)
    assert (tmp_path / "a" / "b").is_dir()


def test_a_subpath_cannot_leave(tmp_path):
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "out").symlink_to("/etc")
    with pytest.raises(OSError, match="leaves the volume"):
        mounts.open_beneath(volume, "out/passwd", create=False)
    (volume / "..data").symlink_to("x")
    (volume / "x").mkdir()
    (volume / "x" / "f").touch()
    (volume / "f").symlink_to("..data/f")
    os.close(mounts.open_beneath(volume, "f", create=False))
