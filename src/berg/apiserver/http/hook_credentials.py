"""Who the server is to its webhooks: the users of a kubeconfig, named by the host and port that each is for.

`example.com:8443` is exactly that, `*.example.com` every host below it, a name without port the one on 443, `*` all
others; after them comes the user of the current context.

Source: k8s.io/apiserver pkg/util/webhook/authentication.go, pkg/admission/plugin/webhook/config/kubeconfig.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berg.machinery.status import Obj

if TYPE_CHECKING:
    import ssl

_VERSIONS = tuple(f"apiserver.config.k8s.io/{v}" for v in ("v1", "v1alpha1"))


class BadCredentials(ValueError):
    """The file cannot be used."""


class Credentials:
    def __init__(self, kubeconfig: Obj) -> None:
        self._users: dict[str, Obj] = {u["name"]: u.get("user") or {} for u in kubeconfig.get("users") or ()}
        current = kubeconfig.get("current-context")
        contexts = {c["name"]: c.get("context") or {} for c in kubeconfig.get("contexts") or ()}
        self._default = self._users.get((contexts.get(current) or {}).get("user") or "") or {}

    def user(self, host: str, port: int) -> Obj:
        """Empty: nobody."""
        for name in _names(host, port):
            if name in self._users:
                return self._users[name]
        return self._default


NOBODY = Credentials({})


def configured(config: Obj) -> Credentials:
    """What a `WebhookAdmissionConfiguration` names; empty: nothing. Raises BadCredentials."""
    if not config:
        return NOBODY
    version, kind = config.get("apiVersion"), config.get("kind")
    if kind != "WebhookAdmissionConfiguration" or version not in _VERSIONS:
        raise BadCredentials(f'no kind "{kind}" is registered for version "{version}"')
    file = config.get("kubeConfigFile") or ""
    if not file:
        return NOBODY
    if not Path(file).is_absolute():
        raise BadCredentials(f'kubeConfigFile: Invalid value: "{file}": must be an absolute file path')
    from berg.machinery.codec import yaml

    try:
        body: Any = yaml.loads(Path(file).read_bytes())
    except (OSError, ValueError) as e:
        raise BadCredentials(f"{file}: {e}") from None
    if not isinstance(body, dict):
        raise BadCredentials(f"{file}: not a kubeconfig")
    return Credentials(body)


def headers(user: Obj) -> dict[str, str]:
    """Raises OSError when its token's file cannot be read."""
    found: dict[str, str] = {}
    token = user.get("token") or ""
    if file := user.get("tokenFile"):  # it may change, so it is read at each call
        token = Path(file).read_text().strip() or token
    if token:
        found["Authorization"] = f"Bearer {token}"
    elif user.get("username") or user.get("password"):
        both = f"{user.get('username') or ''}:{user.get('password') or ''}"
        found["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
    return found


def load_certificate(context: ssl.SSLContext, user: Obj) -> None:
    """Shows the user's certificate to whom is called. Raises OSError, ValueError."""
    if user.get("client-certificate"):
        context.load_cert_chain(user["client-certificate"], user.get("client-key"))
    elif user.get("client-certificate-data"):
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as directory:  # OpenSSL reads files only
            paths = Path(directory, "certificate"), Path(directory, "key")
            for path, field in zip(paths, ("client-certificate-data", "client-key-data"), strict=True):
                path.touch(0o600)
                path.write_bytes(base64.b64decode(user.get(field) or ""))
            context.load_cert_chain(*paths)


def _names(host: str, port: int) -> Iterator[str]:
    for target in (f"{host}:{port}", host) if port == 443 else (f"{host}:{port}",):
        yield target
        steps = target.split(".")
        for i in range(1, len(steps)):
            yield f"*.{'.'.join(steps[i:])}"
    yield "*"
