"""A layer comes from somebody else and is unpacked as root: nothing outside of its directory may change."""

import io
import os
import stat
from pathlib import Path

import pytest

from berg.runtime.own.images.unpack import BadLayer, unpack

from .images_made import entry, layer, link

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The layer's directory, with something beside it that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("untouched")
    (tmp_path / "layer").mkdir()
    return tmp_path / "layer"


def fill(root: Path, *entries: tuple, lower: tuple[Path, ...] = ()) -> int:
    return unpack(io.BytesIO(layer(*entries)), str(root), [str(path) for path in lower])


def outside_is_untouched(root: Path) -> bool:
    outside = root.parent / "outside"
    return sorted(os.listdir(outside)) == ["secret"] and (outside / "secret").read_text() == "untouched"


def test_files_directories_links_with_owner_mode_and_time(root: Path) -> None:
    size = fill(
        root,
        entry("etc/", mode=0o750, uid=7, gid=8, mtime=1000),
        entry("etc/file", b"content", mode=0o4755, uid=1, gid=2, mtime=2000),
        link("etc/soft", "/nowhere"),
        link("hard", "etc/file", hard=True),
    )
    assert size == 7
    status = os.stat(root / "etc/file")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime)) == (0o4755, 1, 2, 2000)
    directory = os.stat(root / "etc")
    assert (stat.S_IMODE(directory.st_mode), directory.st_uid, int(directory.st_mtime)) == (0o750, 7, 1000)
    assert os.readlink(root / "etc/soft") == "/nowhere"
    assert os.stat(root / "hard").st_ino == status.st_ino


@pytest.mark.parametrize("name", ["../outside/evil", "/../../outside/evil", "a/../../outside/evil"])
def test_dots_do_not_lead_out(root: Path, name: str) -> None:
    fill(root, entry("a/"), entry(name, b"x"))
    assert outside_is_untouched(root)


@pytest.mark.parametrize("target", ["../outside", "/{outside}", "../../../../../../{outside}"])
def test_a_link_of_the_same_layer_does_not_lead_out(root: Path, target: str) -> None:
    target = target.replace("{outside}", str(root.parent / "outside").lstrip("/"))
    try:
        fill(root, link("way", target), entry("way/evil", b"x"))
    except BadLayer:
        pass  # refusing is as good as staying inside
    assert outside_is_untouched(root)


def test_a_file_over_a_link_replaces_the_link(root: Path) -> None:
    fill(root, link("file", "../outside/secret"), entry("file", b"mine"))
    assert (root / "file").read_bytes() == b"mine" and not (root / "file").is_symlink()
    assert outside_is_untouched(root)


@pytest.mark.parametrize("target", ["../outside/secret", "/../outside/secret", "way/secret"])
def test_a_hard_link_does_not_reach_out(root: Path, target: str) -> None:
    with pytest.raises(BadLayer):
        fill(root, link("way", "../outside"), link("mine", target, hard=True))
    assert os.stat(root.parent / "outside" / "secret").st_nlink == 1


def test_the_mode_of_a_link_is_not_set_on_its_target(root: Path) -> None:
    before = os.stat(root.parent / "outside" / "secret").st_mode
    fill(root, link("way", "../outside/secret"))
    assert os.stat(root.parent / "outside" / "secret").st_mode == before


def test_whiteouts_become_those_of_overlayfs(root: Path) -> None:
    fill(root, entry("a/"), entry("a/.wh.gone", b""), entry("b/"), entry("b/.wh..wh..opq", b""))
    status = os.lstat(root / "a/gone")
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(root / "b", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize("name", [".wh...", ".wh."])
def test_a_whiteout_of_the_directory_itself_is_refused(root: Path, name: str) -> None:
    with pytest.raises(BadLayer):
        fill(root, entry("a/"), entry(f"a/{name}", b""))


def test_a_layer_cannot_mark_directories_for_overlayfs(root: Path) -> None:
    info, data = entry("dir/")
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    with pytest.raises(BadLayer):
        fill(root, (info, data))


def test_capabilities_of_files_are_kept(root: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    info, data = entry("ping", b"x")
    info.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    fill(root, (info, data))
    assert os.getxattr(root / "ping", "security.capability") == capability


def test_a_directory_that_is_only_used_looks_as_below(root: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    (below / "var").mkdir(parents=True)
    os.chmod(below / "var", 0o2770)
    os.chown(below / "var", 33, 44)
    fill(root, entry("var/new", b"x"), lower=(below,))
    status = os.stat(root / "var")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2770, 33, 44)


def test_a_link_below_does_not_lend_its_target(root: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    os.symlink(root.parent / "outside", below / "var")
    os.chown(root.parent / "outside", 5, 5)
    fill(root, entry("var/new", b"x"), lower=(below,))
    assert os.stat(root / "var").st_uid == 0


@pytest.mark.parametrize("cut", [1, 600, 1100])
def test_a_broken_archive_is_refused(root: Path, cut: int) -> None:
    data = layer(entry("a", b"x" * 2000))
    with pytest.raises(BadLayer):
        unpack(io.BytesIO(data[:cut]), str(root))
