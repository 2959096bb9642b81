"""The ConfigMap that tells aggregated API servers whom this one trusts.

Source: kubernetes pkg/controlplane/controller/clusterauthenticationtrust.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from berg.apiserver.hooks.objects import ensure
from berg.apiserver.registry.services import Services
from berg.machinery.resources import resource

NAME = "extension-apiserver-authentication"


async def run(services: Services) -> None:
    config = services.config
    data: dict[str, str] = {}
    if config.client_ca_file:
        data["client-ca-file"] = _text(config.client_ca_file)
    if config.requestheader_client_ca_file:
        data["requestheader-client-ca-file"] = _text(config.requestheader_client_ca_file)
        lists = {
            "requestheader-allowed-names": config.requestheader_allowed_names,
            "requestheader-extra-headers-prefix": config.requestheader_extra_headers_prefix,
            "requestheader-group-headers": config.requestheader_group_headers,
            "requestheader-uid-headers": config.requestheader_uid_headers,
            "requestheader-username-headers": config.requestheader_username_headers,
        }
        data.update({k: orjson.dumps(v).decode() for k, v in lists.items()})
    maps = resource("configmaps")
    wanted = {"metadata": {"name": NAME, "namespace": "kube-system"}, "data": data}
    if not await ensure(services, maps, wanted):
        current = services.get(maps, "kube-system", NAME)
        if current is not None and current.get("data") != data:
            await services.update(maps, "kube-system", {**current, "data": data})


def _text(path: str) -> str:
    return Path(path).read_text()
