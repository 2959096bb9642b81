"""What others need to verify service-account tokens: the keys and OpenID's discovery document.

Source: kubernetes pkg/serviceaccount/openidmetadata.go.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from berg.apiserver.auth.serviceaccount import ServiceAccountTokens
from berg.apiserver.config import Config
from berg.apiserver.http.message import Request, Response


def answers(
    config: Config, tokens: ServiceAccountTokens, address: Callable[[], str]
) -> dict[str, Callable[[Request], Response]]:
    """Path → what answers it."""

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

    return {
        "/openid/v1/jwks": jwks,
        "/openid/v1/jwks/": jwks,
        "/.well-known/openid-configuration": openid,
        "/.well-known/openid-configuration/": openid,
    }
