"""Where a node's kubelet is, and how to speak to it.

Source: kubernetes pkg/kubelet/client.
"""

from __future__ import annotations

import ssl

from berg.apiserver.http.forward import Target, client_tls
from berg.apiserver.registry.services import Services
from berg.machinery import status
from berg.machinery.resources import resource
from berg.machinery.status import ApiError

_contexts: dict[tuple[str, str, str], ssl.SSLContext] = {}


def tls(services: Services) -> ssl.SSLContext:
    config = services.config
    files = (config.kubelet_certificate_authority, config.kubelet_client_certificate, config.kubelet_client_key)
    found = _contexts.get(files)
    if found is None:
        found = _contexts[files] = client_tls(*files)
    return found


def target(services: Services, node_name: str, path: str, query: str = "") -> Target:
    """Raises ApiError when the node is unknown or has no address."""
    node = services.get(resource("nodes"), "", node_name)
    if node is None:
        raise status.not_found("", "nodes", node_name)
    state = node.get("status") or {}
    addresses: dict[str, str] = {}
    for address in state.get("addresses") or ():
        addresses.setdefault(address["type"], address["address"])
    host = next((addresses[t] for t in services.config.kubelet_preferred_address_types if t in addresses), "")
    if not host:
        types = services.config.kubelet_preferred_address_types
        raise ApiError(500, "", f"no preferred addresses found; known addresses: {[*addresses] or types}")
    endpoint = (state.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return Target(host, endpoint.get("Port") or 10250, path, query, tls(services))
