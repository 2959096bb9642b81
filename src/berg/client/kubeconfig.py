"""kubeconfig files: loading and merging as kubectl does, and what they say about one cluster.

`Kubeconfig.load("a:b")` merges several files, the first to name a thing wins; relative paths are relative to
the file that has them. `endpoint()` is everything needed to speak to the server of one context.

Source: client-go tools/clientcmd/loader.go.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berg.client.transport import HTTPTransport, Token, TokenFile
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.client.rest import Client

SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}
FILE_FIELDS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
    "contexts": (),
}
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(Exception):
    """The kubeconfig cannot be used; the message says why."""


@dataclass
class Endpoint:
    """How to reach one API server, as one user."""

    server: str
    namespace: str = "default"
    ca_data: bytes = b""
    cert_data: bytes = b""
    key_data: bytes = b""
    token: Token | str | None = None
    username: str = ""
    password: str = ""
    insecure: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    impersonate: dict[str, str] = field(default_factory=dict)

    def tls(self) -> ssl.SSLContext | None:
        if not self.server.startswith("https"):
            return None
        ctx = ssl.create_default_context(cadata=self.ca_data.decode() if self.ca_data else None)
        if self.ca_data:  # a private CA made by older tools lacks what strict verification asks for
            ctx.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if self.insecure:
            ctx.check_hostname = False
            ctx.verify_mode = ssl.CERT_NONE
        if self.cert_data:
            with tempfile.NamedTemporaryFile() as f:  # mode 0600; ssl reads certificates only from files
                f.write(self.cert_data.rstrip() + b"\n" + self.key_data)
                f.flush()
                ctx.load_cert_chain(f.name)
        return ctx

    def transport(self) -> HTTPTransport:
        headers = dict(self.impersonate)
        if self.username:
            basic = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {basic}"
        return HTTPTransport(
            self.server,
            tls=self.tls(),
            token=self.token,
            headers=headers,
            server_hostname=self.tls_server_name,
            proxy=self.proxy_url,
            bare=lambda: self.anonymous().transport(),
        )

    def anonymous(self) -> Endpoint:
        """The same server, as no one."""
        return Endpoint(
            self.server,
            self.namespace,
            ca_data=self.ca_data,
            insecure=self.insecure,
            tls_server_name=self.tls_server_name,
            proxy_url=self.proxy_url,
        )


class Kubeconfig:
    """A merged kubeconfig. `raw` has the file's shape; its named lists keep their order."""

    def __init__(self, raw: Obj | None = None) -> None:
        self.raw: Obj = raw if raw is not None else _empty()

    @classmethod
    def default_paths(cls) -> list[str]:
        if env := os.environ.get("KUBECONFIG"):
            return [p for p in env.split(os.pathsep) if p]
        return [str(Path.home() / ".kube" / "config")]

    @classmethod
    def load(cls, paths: str | os.PathLike[str] | Sequence[str] | None = None) -> Kubeconfig:
        """Merges the files of `paths` (a list, or joined as in $KUBECONFIG). One file alone must exist."""
        if paths is None:
            paths = cls.default_paths()
        elif isinstance(paths, str | os.PathLike):
            paths = [p for p in str(paths).split(os.pathsep) if p]
        merged = cls()
        for path in paths:
            try:
                merged.merge(_read(path))
            except FileNotFoundError as e:
                if len(paths) == 1:
                    raise KubeconfigError(f"{path}: no such file") from e
        return merged

    def merge(self, other: Obj) -> None:
        """Adds what `other` names and this does not name yet."""
        for section in SECTIONS:
            mine = self.raw.setdefault(section, [])
            names = {entry["name"] for entry in mine}
            mine += [entry for entry in other.get(section) or [] if entry["name"] not in names]
        if not self.raw.get("current-context") and other.get("current-context"):
            self.raw["current-context"] = other["current-context"]

    def set(self, section: str, name: str, value: Obj) -> None:
        """Puts a cluster, user or context, over one of the same name."""
        entries = self.raw.setdefault(section, [])
        new = {"name": name, SECTIONS[section]: value}
        for i, entry in enumerate(entries):
            if entry["name"] == name:
                entries[i] = new
                return
        entries.append(new)

    def remove(self, section: str, name: str) -> None:
        self.raw[section] = [e for e in self.raw.get(section) or [] if e["name"] != name]

    def find(self, section: str, name: str) -> Obj:
        for entry in self.raw.get(section) or []:
            if entry["name"] == name:
                return entry.get(SECTIONS[section]) or {}
        raise KubeconfigError(f'{SECTIONS[section]} "{name}" does not exist')

    def endpoint(self, context: str | None = None) -> Endpoint:
        context = context or self.raw.get("current-context") or ""
        if not context:
            raise KubeconfigError("no context is given and current-context is not set")
        ctx = self.find("contexts", context)
        cluster = self.find("clusters", ctx.get("cluster", ""))
        user = self.find("users", ctx["user"]) if ctx.get("user") else {}
        if "exec" in user:
            user = {**user, **_exec_credential(user["exec"], cluster)}
        token: Token | str | None = user.get("token")
        if not token and user.get("tokenFile"):
            token = TokenFile(user["tokenFile"])
        impersonate = {"Impersonate-User": user["as"]} if user.get("as") else {}
        return Endpoint(
            server=cluster.get("server") or "http://localhost:8080",
            namespace=ctx.get("namespace") or "default",
            ca_data=_data(cluster, "certificate-authority"),
            cert_data=_data(user, "client-certificate"),
            key_data=_data(user, "client-key"),
            token=token,
            username=user.get("username", ""),
            password=user.get("password", ""),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            tls_server_name=cluster.get("tls-server-name"),
            proxy_url=cluster.get("proxy-url"),
            impersonate=impersonate,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Replaces the file at once, readable by its owner only."""
        import yaml

        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(fd, "w") as f:
                yaml.safe_dump(self.raw, f, sort_keys=False, default_flow_style=False)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def client_from(path: str | os.PathLike[str], context: str | None = None, *, server: str = "", **kw: Any) -> Client:
    """A client as a kubeconfig says; `server` overrides its address, the rest goes to `Client`."""
    from berg.client.rest import Client

    endpoint = Kubeconfig.load(path).endpoint(context)
    endpoint.server = server or endpoint.server
    return Client(endpoint.transport(), **kw)


def in_cluster() -> Endpoint:
    """The API server as a pod sees it. Raises KubeconfigError outside of one."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (SERVICE_ACCOUNT / "token").exists():
        raise KubeconfigError("this is not running in a pod with a service account")
    host = f"[{host}]" if ":" in host else host
    return Endpoint(
        server=f"https://{host}:{port}",
        namespace=(SERVICE_ACCOUNT / "namespace").read_text().strip(),
        ca_data=(SERVICE_ACCOUNT / "ca.crt").read_bytes(),
        token=TokenFile(str(SERVICE_ACCOUNT / "token")),
    )


def _empty() -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [],
        "users": [],
        "contexts": [],
        "current-context": "",
    }


def _read(path: str) -> Obj:
    import yaml

    with open(path, "rb") as f:
        try:
            raw = yaml.load(f, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            raise KubeconfigError(f"{path}: {e}") from e
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig")
    if fault := _fault(raw):
        raise KubeconfigError(f"{path}: {fault}")
    base = Path(path).resolve().parent
    for section, names in FILE_FIELDS.items():
        for entry in raw.get(section) or []:
            body = entry.get(SECTIONS[section]) or {}
            for name in names:
                if body.get(name):
                    body[name] = str(base / body[name])
    return raw


def _fault(raw: Obj) -> str:
    """What is wrong with a file's structure; "" when nothing is."""
    if not isinstance(raw.get("current-context"), str | None):
        return "current-context is not a string"
    for section, body_name in SECTIONS.items():
        entries = raw.get(section)
        if not isinstance(entries, list | None):
            return f"{section} is not a list"
        for i, entry in enumerate(entries or ()):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                return f"{section}[{i}] is not an object with a name"
            body = entry.get(body_name)
            if not isinstance(body, dict | None):
                return f"{section}[{i}].{body_name} is not an object"
            for name, value in (body or {}).items():
                if name in _TEXTS and not isinstance(value, str | None):
                    return f"{section}[{i}].{body_name}.{name} is not a string"
    return ""


_TEXTS = frozenset(
    (
        *("server", "tls-server-name", "proxy-url", "certificate-authority", "certificate-authority-data"),
        *("cluster", "user", "namespace", "token", "tokenFile", "username", "password", "as"),
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
    )
)


def _data(body: Obj, name: str) -> bytes:
    if inline := body.get(f"{name}-data"):
        try:
            return base64.b64decode(inline, validate=True)
        except ValueError:
            raise KubeconfigError(f"{name}-data is no base64") from None
    if path := body.get(name):
        try:
            return Path(path).read_bytes()
        except (OSError, ValueError) as e:
            raise KubeconfigError(f"unable to read {name} {path}: {getattr(e, 'strerror', e)}") from e
    return b""


def _exec_credential(spec: Obj, cluster: Obj) -> dict[str, Any]:
    """Runs a credential plugin once. Source: client.authentication.k8s.io ExecCredential."""
    import json
    import subprocess

    api_version = spec.get("apiVersion", "client.authentication.k8s.io/v1")
    info = {"apiVersion": api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    if spec.get("provideClusterInfo"):
        info["spec"]["cluster"] = {"server": cluster.get("server")}
    env = {**os.environ, **{e["name"]: e["value"] for e in spec.get("env") or []}}
    env["KUBERNETES_EXEC_INFO"] = json.dumps(info)
    try:
        done = subprocess.run(
            [spec["command"], *(spec.get("args") or [])], env=env, stdout=subprocess.PIPE, check=True, timeout=60
        )
        status = json.loads(done.stdout).get("status") or {}
    except (OSError, subprocess.SubprocessError, ValueError) as e:
        raise KubeconfigError(f"getting credentials: exec: {e}") from e
    got: dict[str, Any] = {}
    if status.get("token"):
        got["token"] = status["token"]
    for theirs, ours in (("clientCertificateData", "client-certificate"), ("clientKeyData", "client-key")):
        if status.get(theirs):
            got[f"{ours}-data"] = base64.b64encode(status[theirs].encode()).decode()
    return got
