"""Asking a cluster how it is, with the standard library only: `berg up` must not pay for a client's import."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from berg.lifecycle import kubeconfig as kubeconfigs


class Probe:
    """One kubeconfig's view of the API server, over one connection that is kept; a watch has its own."""

    def __init__(self, kubeconfig: Path, timeout_s: float = 5) -> None:
        config = kubeconfigs.read(kubeconfig)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        url = urlsplit(cluster["server"])
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 443
        self._timeout_s = timeout_s
        self._kept: http.client.HTTPSConnection | None = None
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._tls.check_hostname = False  # reached by an address that a later certificate may not list
        with tempfile.NamedTemporaryFile() as pem:
            os.chmod(pem.name, 0o600)
            pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pem.flush()
            self._tls.load_cert_chain(pem.name)

    def _connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)

    def get(self, path: str) -> tuple[int, bytes]:
        """Raises OSError when the server can't be reached."""
        connection, self._kept = self._kept or self._connection(self._timeout_s), None
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            found = response.status, response.read()
        except http.client.HTTPException as e:
            connection.close()
            raise OSError(str(e) or type(e).__name__) from e
        except OSError:
            connection.close()
            raise
        self._kept = connection
        return found

    def get_json(self, path: str) -> dict[str, Any] | None:
        """None for anything but a 200."""
        status, body = self.get(path)
        return json.loads(body) if status == 200 else None

    def ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def watch(self, path: str, timeout_s: float) -> Iterator[dict[str, Any]]:
        """The events of a watch; ends, or raises OSError, after `timeout_s` of silence."""
        connection = self._connection(timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            while line := response.readline():
                yield json.loads(line)
        except http.client.HTTPException as e:
            raise OSError(str(e) or type(e).__name__) from e
        finally:
            connection.close()
