"""Builds small OCI image archives from Debian packages, for tests, the tutorial and machines without the internet.

    python tools/build_images.py [--out DIR] [NAME=REFERENCE ...]

NAME is one of the recipes below (busybox, pause, nginx, redis, python); REFERENCE is what it will be called, any name
(`registry.k8s.io/e2e-test-images/busybox:1.29`). Without arguments every recipe is built under its own name. Packages
that are not installed are downloaded with apt and unpacked, not installed. The archive holds the package's programs,
the shared libraries they load and nothing that depends on the day, so the same packages give the same digest.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
LIBRARY_DIRECTORIES = [
    f"/lib/{platform.machine()}-linux-gnu",
    f"/usr/lib/{platform.machine()}-linux-gnu",
    "/lib",
    "/usr/lib",
]


@dataclass(frozen=True)
class Recipe:
    reference: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    """Files and directories of the packages to take; the libraries of programs follow by themselves."""
    files: dict[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    command: tuple[str, ...] = ("/bin/sh",)
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)


_NGINX_CONF = """\
daemon off;
worker_processes 1;
error_log /dev/stderr;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
  default_type text/html;
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 80; root /usr/share/nginx/html; }
}
"""

RECIPES = {
    "busybox": Recipe("docker.io/library/busybox:latest", ("busybox-static",), ("/bin/busybox",)),
    # What other runtimes hold a pod's namespaces with; Berg's own needs none.
    "pause": Recipe(
        "registry.k8s.io/pause:3.10", ("busybox-static",), ("/bin/busybox",), command=("/bin/sleep", "2147483647")
    ),
    "nginx": Recipe(
        "docker.io/library/nginx:latest",
        ("nginx", "busybox-static"),
        ("/usr/sbin/nginx", "/bin/busybox"),
        files={
            "/etc/nginx/nginx.conf": _NGINX_CONF,
            "/usr/share/nginx/html/index.html": "<html><body><h1>Welcome to nginx!</h1></body></html>\n",
        },
        directories=("/var/log/nginx", "/var/lib/nginx"),
        command=("/usr/sbin/nginx",),
        ports=("80/tcp",),
        links={"/var/log/nginx/error.log": "/dev/stderr", "/var/log/nginx/access.log": "/dev/stdout"},
    ),
    "redis": Recipe(
        "docker.io/library/redis:latest",
        ("redis-server", "redis-tools", "busybox-static"),
        (
            "/usr/bin/redis-server",
            "/usr/bin/redis-check-rdb",
            "/usr/bin/redis-cli",
            "/usr/bin/redis-benchmark",
            "/bin/busybox",
        ),
        directories=("/data",),
        command=("/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"),
        ports=("6379/tcp",),
    ),
    "python": Recipe(
        "docker.io/library/python:latest",
        ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "busybox-static"),
        ("/usr/bin/python3.11", "/usr/lib/python3.11", "/bin/busybox"),
        command=("/usr/bin/python3",),
        env=("PYTHONUNBUFFERED=1",),
        links={"/usr/bin/python3": "python3.11", "/usr/local/bin/python": "/usr/bin/python3.11"},
    ),
}

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
"""
_GROUP = "root:x:0:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"


class Tree:
    """The image's only layer: paths to (tar entry, content)."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[tarfile.TarInfo, bytes]] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        path = path.strip("/")
        if not path or path in self.entries:
            return
        self.directory(os.path.dirname(path))
        self._put(path, tarfile.DIRTYPE, mode)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self.directory(os.path.dirname(path))
        self._put(path.strip("/"), tarfile.REGTYPE, mode, content)

    def link(self, path: str, target: str) -> None:
        self.directory(os.path.dirname(path))
        self._put(path.strip("/"), tarfile.SYMTYPE, 0o777, linkname=target)

    def hard_link(self, path: str, target: str) -> None:
        self.directory(os.path.dirname(path))
        self._put(path.strip("/"), tarfile.LNKTYPE, 0o755, linkname=target.strip("/"))

    def _put(self, path: str, kind: bytes, mode: int, content: bytes = b"", linkname: str = "") -> None:
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.size, info.linkname = kind, mode, len(content), linkname
        self.entries[path] = (info, content)

    def tar(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            # A hard link can only follow what it is a link to.
            for _, (info, content) in sorted(self.entries.items(), key=lambda e: (e[1][0].islnk(), e[0])):
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


class Packages:
    """Files of Debian packages: the installed ones, or downloaded and unpacked beside."""

    def __init__(self, names: Iterable[str], scratch: Path) -> None:
        self.roots = [Path("/")]
        missing = [name for name in names if not self._installed(name)]
        if missing:
            unpacked = scratch / "unpacked"
            unpacked.mkdir(exist_ok=True)
            self._fetch(missing, scratch, unpacked)
            self.roots.insert(0, unpacked)

    def find(self, path: str) -> Path | None:
        for root in self.roots:
            for variant in (path, "/usr" + path):
                candidate = root / variant.lstrip("/")
                if candidate.exists():
                    return candidate
        return None

    @staticmethod
    def _installed(name: str) -> bool:
        status = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], capture_output=True, text=True)
        return status.stdout == "installed"

    @staticmethod
    def _fetch(names: Sequence[str], scratch: Path, unpacked: Path) -> None:
        print(f"downloading {' '.join(names)} and what they need", file=sys.stderr)
        simulated = subprocess.run(
            ["apt-get", "install", "--no-install-recommends", "-s", *names], capture_output=True, text=True, check=True
        )
        wanted = re.findall(r"^Inst (\S+)", simulated.stdout, re.M)
        subprocess.run(["apt-get", "download", "-q", *wanted], cwd=scratch, check=True, stdout=sys.stderr)
        for package in scratch.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)


def libraries(packages: Packages, program: Path) -> set[str]:
    """The shared libraries that a program needs, with their own, by their path in the image."""
    found: dict[str, Path] = {}
    queue = [program]
    while queue:
        for name in _needed(queue.pop()):
            if name in found or name.startswith("linux-vdso"):
                continue
            candidates = [name] if name.startswith("/") else [f"{folder}/{name}" for folder in LIBRARY_DIRECTORIES]
            for candidate in candidates:
                real = packages.find(candidate)
                if real is not None:
                    found[candidate] = real
                    found[name] = real
                    queue.append(real)
                    break
            else:
                raise SystemExit(f"{program}: library {name} not found")
    return {path for path in found if path.startswith("/")}


def _needed(path: Path) -> list[str]:
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    text = (
        subprocess.run(["objdump", "-p", str(path)], capture_output=True, text=True).stdout
        if shutil.which("objdump")
        else ""
    )
    if text:
        interpreter = subprocess.run(
            ["grep", "-aom1", r"/lib[^ ]*/ld-linux[^ ]*\.so\.[0-9]", str(path)], capture_output=True, text=True
        )
        return re.findall(r"NEEDED\s+(\S+)", text) + interpreter.stdout.split()[:1]
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True).stdout
    return re.findall(r"=> (/\S+)", listed) + re.findall(r"^\s*(/\S+) \(", listed, re.M)


def build_tree(recipe: Recipe, packages: Packages) -> Tree:
    tree = Tree()
    for path in ("/bin", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/usr/bin", "/var"):
        tree.directory(path)
    tree.directory("/tmp", 0o1777)
    tree.link("/var/run", "/run")
    tree.file("/etc/passwd", _PASSWD.encode())
    tree.file("/etc/group", _GROUP.encode())
    tree.file("/etc/nsswitch.conf", b"hosts: files dns\n")
    wanted: set[str] = set()
    for path in recipe.programs:
        real = packages.find(path)
        if real is None:
            raise SystemExit(f"{path} is in none of {', '.join(recipe.packages)}")
        for inner, source in _files(path, real):
            wanted |= _add(tree, packages, inner, source)
    for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"):
        candidate = f"{LIBRARY_DIRECTORIES[0]}/{name}"
        if wanted and (real := packages.find(candidate)):
            tree.file(candidate, real.read_bytes(), 0o755)
    for path in wanted:
        real = packages.find(path)
        assert real is not None
        tree.file(path, real.read_bytes(), 0o755)
    for path, text in recipe.files.items():
        tree.file(path, text.encode())
    for path in recipe.directories:
        tree.directory(path, 0o777)
    _links(tree, recipe, packages)
    return tree


def _files(path: str, real: Path) -> Iterable[tuple[str, Path]]:
    if not real.is_dir():
        yield path, real
        return
    for folder, directories, names in os.walk(real):
        directories[:] = sorted(set(directories) - {"__pycache__", "test", "tests"})
        for name in sorted(names):
            source = Path(folder, name)
            yield os.path.join(path, str(source.relative_to(real))), source


def _add(tree: Tree, packages: Packages, path: str, source: Path) -> set[str]:
    if source.is_symlink() and not source.exists():
        return set()
    mode = source.stat().st_mode & 0o7777
    tree.file(path, source.read_bytes(), mode)
    return libraries(packages, source) if mode & 0o111 or ".so" in source.name else set()


def _links(tree: Tree, recipe: Recipe, packages: Packages) -> None:
    busybox = packages.find("/bin/busybox")
    if "/bin/busybox" in recipe.programs and busybox is not None:
        listed = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True)
        for applet in listed.stdout.split():
            if f"bin/{applet}" not in tree.entries:
                tree.hard_link(f"/bin/{applet}", "/bin/busybox")
    for path, target in recipe.links.items():
        tree.link(path, target)


def write_archive(recipe: Recipe, tree: Tree, reference: str, out: Path) -> None:
    layer = tree.tar()
    packed = gzip.compress(layer, 6, mtime=0)
    config = _json(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *recipe.env],
                "Cmd": list(recipe.command),
                **({"Entrypoint": list(recipe.entrypoint)} if recipe.entrypoint else {}),
                **({"ExposedPorts": {port: {} for port in recipe.ports}} if recipe.ports else {}),
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "build_images.py"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["platform"] = {"architecture": ARCHITECTURE, "os": "linux"}
    entry["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]})
    with tarfile.open(out, "w") as archive:
        members = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index}
        members |= {f"blobs/sha256/{_digest(data)[7:]}": data for data in (config, manifest, packed)}
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def build(name: str, reference: str | None, out: Path) -> Path:
    """Builds one recipe under a name; returns the archive's path."""
    recipe = RECIPES[name]
    reference = reference or recipe.reference
    target = out / (re.sub(r"[^A-Za-z0-9.]+", "_", reference) + ".tar")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        packages = Packages(recipe.packages, Path(scratch))
        write_archive(recipe, build_tree(recipe, packages), reference, target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/images"))
    parser.add_argument("images", nargs="*", metavar="NAME[=REFERENCE]", default=sorted(RECIPES))
    options = parser.parse_args()
    for image in options.images:
        name, _, reference = image.partition("=")
        if name not in RECIPES:
            parser.error(f"no recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
        print(build(name, reference or None, options.out))


if __name__ == "__main__":
    main()
