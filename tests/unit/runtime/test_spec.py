from dataclasses import replace
from typing import Any

import pytest

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRIError
from berg.runtime.own.spec import DEFAULT_CAPABILITIES, Given, Image, build
from berg.runtime.own.users import User

GIVEN = Given(
    rootfs="/bundle/rootfs",
    image=Image(entrypoint=["/entry"], cmd=["one"], env=["A=image", "PATH=/bin"], working_dir="/image"),
    user=User(5, 6, (6, 7)),
    sandbox=pb.PodSandboxConfig(),
    namespaces={"network": "/pins/net", "uts": "/pins/uts", "ipc": "/pins/ipc", "pid": ""},
    hostname="pod",
    etc={"hostname": "/etc/of/hostname", "resolv.conf": "/etc/of/resolv.conf"},
    shm="/pins/shm",
    cgroup_path="",
    cgroup_mounts={},
    hooks={},
    image_mounts={},
    volumes={},
)


def spec(given: Given = GIVEN, **fields: Any) -> dict[str, Any]:
    return build(pb.ContainerConfig(**fields), given)


def secured(**fields: Any) -> dict[str, Any]:
    return spec(linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(**fields)))


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["/entry", "one"]),
        ([], ["two"], ["/entry", "two"]),
        (["/own"], [], ["/own"]),
        (["/own"], ["two"], ["/own", "two"]),
    ],
)
def test_command_and_args_against_the_images(command: list, args: list, expected: list) -> None:
    assert spec(command=command, args=args)["process"]["args"] == expected


def test_without_any_command_there_is_nothing_to_run() -> None:
    with pytest.raises(CRIError, match="no command specified"):
        spec(replace(GIVEN, image=Image()))


def test_environment_in_order_of_precedence() -> None:
    env = spec(envs=[pb.KeyValue(key="A", value=b"pod"), pb.KeyValue(key="B", value=b"x=y")], tty=True)["process"][
        "env"
    ]
    assert sorted(env) == ["A=pod", "B=x=y", "HOME=/", "HOSTNAME=pod", "PATH=/bin", "TERM=xterm"]


def test_user_and_working_directory() -> None:
    process = spec()["process"]
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7]}
    assert (process["cwd"], spec(working_dir="/own")["process"]["cwd"]) == ("/image", "/own")


def names(found: dict[str, Any]) -> set[str]:
    assert found["process"]["capabilities"]["bounding"] == found["process"]["capabilities"]["effective"]
    return {name.removeprefix("CAP_") for name in found["process"]["capabilities"]["bounding"]}


DEFAULT = {name.removeprefix("CAP_") for name in DEFAULT_CAPABILITIES}


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT),
        (["NET_ADMIN"], [], DEFAULT | {"NET_ADMIN"}),
        (["CAP_NET_ADMIN", "sys_time"], ["chown"], DEFAULT - {"CHOWN"} | {"NET_ADMIN", "SYS_TIME"}),
        ([], ["ALL"], set()),
        (["NET_BIND_SERVICE"], ["ALL"], {"NET_BIND_SERVICE"}),
        (["NET_RAW"], ["NET_RAW"], DEFAULT - {"NET_RAW"}),
    ],
)
def test_capabilities(add: list, drop: list, expected: set) -> None:
    asked = pb.Capability(add_capabilities=add, drop_capabilities=drop)
    assert names(secured(capabilities=asked)) == expected


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(CRIError, match="unknown capability"):
        secured(capabilities=pb.Capability(add_capabilities=["FLY"]))


def test_privileged_hides_nothing() -> None:
    found = secured(privileged=True, masked_paths=["/proc/kcore"], readonly_paths=["/proc/sys"])
    assert found["linux"]["maskedPaths"] == found["linux"]["readonlyPaths"] == []
    assert "rw" in next(m for m in found["mounts"] if m["destination"] == "/sys")["options"]
    assert "seccomp" not in found["linux"]
    plain = secured(masked_paths=["/proc/kcore"], readonly_paths=["/proc/sys"])
    assert plain["linux"]["maskedPaths"] == ["/proc/kcore"]
    assert "ro" in next(m for m in plain["mounts"] if m["destination"] == "/sys")["options"]


def test_mounts_of_the_pod_win_over_those_of_the_runtime_and_parents_come_first() -> None:
    mounts = [
        pb.Mount(container_path="/a/b", host_path="/"),
        pb.Mount(container_path="/a", host_path="/", readonly=True, propagation=pb.PROPAGATION_HOST_TO_CONTAINER),
        pb.Mount(container_path="/etc/hostname", host_path="/"),
        pb.Mount(container_path="/dev/shm/", host_path="/"),
    ]
    found = spec(mounts=mounts)["mounts"]
    places = [mount["destination"].rstrip("/") for mount in found]
    assert len(places) == len(set(places))
    assert places.index("/a") < places.index("/a/b")
    assert next(m for m in found if m["destination"] == "/a")["options"] == ["rbind", "rslave", "ro"]
    assert next(m for m in found if m["destination"] == "/etc/hostname")["source"] == "/"
    assert next(m for m in found if m["destination"] == "/etc/resolv.conf")["source"] == "/etc/of/resolv.conf"


def test_namespaces_are_joined_or_made_or_the_hosts() -> None:
    found = {n["type"]: n.get("path") for n in spec()["linux"]["namespaces"]}
    assert found == {"mount": None, "network": "/pins/net", "uts": "/pins/uts", "ipc": "/pins/ipc", "pid": None}
    host = spec(replace(GIVEN, namespaces={}))
    assert [n["type"] for n in host["linux"]["namespaces"]] == ["mount"]
    assert next(m for m in host["mounts"] if m["destination"] == "/sys")["type"] == "none"


def test_seccomp() -> None:
    profile = pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault)
    found = secured(seccomp=profile)["linux"]["seccomp"]
    allowed = {n for rule in found["syscalls"] if "args" not in rule for n in rule["names"]}
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"openat", "execve", "chroot"} <= allowed and not {"mount", "reboot", "bpf", "kexec_load"} & allowed
    assert "seccomp" not in secured()["linux"]
    missing = pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref="/no/such/profile")
    with pytest.raises(CRIError, match="/no/such/profile"):
        secured(seccomp=missing)


def test_devices() -> None:
    device = pb.Device(container_path="/dev/mine", host_path="/dev/null", permissions="rw")
    [node] = spec(devices=[device])["linux"]["devices"]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/mine", "c", 1, 3)
    for wrong in ("/no/such/device", "/etc/passwd"):
        with pytest.raises(CRIError):
            spec(devices=[pb.Device(container_path="/dev/mine", host_path=wrong)])
