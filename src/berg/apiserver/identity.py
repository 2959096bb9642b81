"""What others need to verify service-account tokens: the keys and OpenID's discovery document; and this server's
flags and state for people (`/flagz`, `/statusz`).

Source: kubernetes pkg/serviceaccount/openidmetadata.go, k8s.io/component-base zpages.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from berg.apiserver import version
from berg.apiserver.auth.serviceaccount import ServiceAccountTokens
from berg.apiserver.config import Config
from berg.apiserver.http.message import Request, Response

_SECRET = frozenset(("clock", "store"))


def answers(
    config: Config, tokens: ServiceAccountTokens, address: Callable[[], str]
) -> dict[str, Callable[[Request], Response]]:
    """Path → what answers it."""
    started = time.time()

    def jwks(request: Request) -> Response:
        return Response(
            200, orjson.dumps(tokens.jwks()), "application/jwk-set+json", {"Cache-Control": "public, max-age=3600"}
        )

    def openid(request: Request) -> Response:
        uri = config.service_account_jwks_uri or f"https://{address()}/openid/v1/jwks"
        algorithms = sorted({key.algorithm for key in tokens.keys})
        document = {
            "issuer": tokens.issuers[0],
            "jwks_uri": uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        }
        return Response(200, orjson.dumps(document), headers={"Cache-Control": "public, max-age=3600"})

    def flagz(request: Request) -> Response:
        lines = ["kube-apiserver flagz", "Warning: This endpoint is not meant to be machine parseable.", ""]
        for field in dataclasses.fields(config):
            if field.name not in _SECRET:
                lines.append(f"{field.name.replace('_', '-')}={_flag(getattr(config, field.name))}")
        return _text("\n".join(lines) + "\n")

    def statusz(request: Request) -> Response:
        up = int(time.time() - started)
        since = datetime.fromtimestamp(started, UTC)
        return _text(
            "kube-apiserver statusz\nWarning: This endpoint is not meant to be machine parseable.\n\n"
            f"Started: {since:%a %b %d %H:%M:%S UTC %Y}\n"
            f"Up: {up // 3600} hr {up // 60 % 60:02d} min {up % 60:02d} sec\n"
            f"Binary version: {version.GIT_VERSION}\nEmulation version: {version.MAJOR}.{version.MINOR}\n"
        )

    return {
        "/openid/v1/jwks": jwks,
        "/openid/v1/jwks/": jwks,
        "/.well-known/openid-configuration": openid,
        "/flagz": flagz,
        "/statusz": statusz,
    }


def _flag(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ",".join(f"{k}={_flag(v)}" for k, v in value.items())
    if isinstance(value, tuple):
        return "-".join(str(v) for v in value)
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def _text(text: str) -> Response:
    return Response(200, text.encode(), "text/plain; charset=utf-8")
