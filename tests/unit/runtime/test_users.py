from pathlib import Path

import pytest

from berg.runtime.api import cri_pb2 as pb
from berg.runtime.own.users import UnknownUser, User, read_file, resolve

PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:34:\nextra:x:50:app,other\nmore:x:60:other\nvideo:x:44:web\n"


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    etc = tmp_path / "layer" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text(GROUP)
    return [str(tmp_path / "upper"), str(tmp_path / "layer")]


def security(**fields: object) -> pb.LinuxContainerSecurityContext:
    message = pb.LinuxContainerSecurityContext()
    for name, value in fields.items():
        if name in ("run_as_user", "run_as_group"):
            getattr(message, name).value = value
        elif name == "supplemental_groups":
            message.supplemental_groups.extend(value)  # type: ignore[arg-type]
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("image", "fields", "expected"),
    [
        ("", {}, User(0, 0, (0,))),
        ("web", {}, User(33, 34, (34, 44))),
        ("33", {}, User(33, 34, (34, 44))),
        ("4242", {}, User(4242, 0, (0,))),
        ("app:60", {}, User(1000, 60, (50, 60))),
        ("4242:more", {}, User(4242, 60, (60,))),
        ("web", {"run_as_user": 1000}, User(1000, 1001, (50, 1001))),
        ("web", {"run_as_username": "app"}, User(1000, 1001, (50, 1001))),
        ("", {"run_as_user": 5, "run_as_group": 6, "supplemental_groups": [9, 8]}, User(5, 6, (6, 8, 9))),
        ("app", {"supplemental_groups": [9]}, User(1000, 1001, (9, 50, 1001))),
        ("app", {"supplemental_groups": [9], "supplemental_groups_policy": pb.Strict}, User(1000, 1001, (9, 1001))),
    ],
)
def test_who_it_is(layers: list[str], image: str, fields: dict, expected: User) -> None:
    found = resolve(layers, image, security(**fields))
    assert (found.uid, found.gid, found.groups) == (expected.uid, expected.gid, expected.groups)
    assert found.home == ("/root" if found.uid == 0 else "/")


@pytest.mark.parametrize(
    ("image", "fields", "message"),
    [
        ("nobody-here", {}, "unable to find user nobody-here"),
        ("web:nogroup", {}, "unable to find group nogroup"),
        ("", {"run_as_group": 5}, "runAsGroup is specified without a runAsUser"),
    ],
)
def test_who_is_unknown(layers: list[str], image: str, fields: dict, message: str) -> None:
    with pytest.raises(UnknownUser, match=message):
        resolve(layers, image, security(**fields))


def test_the_uppermost_layer_counts_and_a_link_does_not_lead_out(tmp_path: Path) -> None:
    for name in ("up", "down"):
        (tmp_path / name / "etc").mkdir(parents=True)
    (tmp_path / "down" / "etc" / "passwd").write_text("down")
    paths = [str(tmp_path / "up"), str(tmp_path / "down")]
    assert read_file(paths, "etc/passwd") == "down"
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "up" / "etc" / "passwd").symlink_to("../../secret")
    assert read_file(paths, "etc/passwd") == "down"
    (tmp_path / "up" / "etc" / "passwd").unlink()
    (tmp_path / "up" / "etc" / "passwd").write_text("up")
    assert read_file(paths, "etc/passwd") == "up"
