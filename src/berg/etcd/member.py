"""Who this server is to its clients: a cluster of one member.

The ids are made once and kept with the store; the term never changes, because nobody is ever elected.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from berg.storage.embedded.engine import EmbeddedStore
from berg.storage.etcd.api import rpc_pb2 as pb

VERSION = "3.6.14"
"""the etcd release whose API is served"""
CLUSTER_VERSION = "3.6.0"
TERM = 2

_CLUSTER_ID, _MEMBER_ID, _PEER_URLS = "etcd/cluster-id", "etcd/member-id", "etcd/peer-urls"


@dataclass(slots=True)
class Member:
    store: EmbeddedStore
    name: str = "default"
    client_urls: list[str] = field(default_factory=list)
    peer_urls: list[str] = field(default_factory=lambda: ["http://localhost:2380"])
    id: int = 0
    cluster_id: int = 0

    async def load(self) -> None:
        self.cluster_id = await self._kept(_CLUSTER_ID)
        self.id = await self._kept(_MEMBER_ID)

        kept = self.store.meta.get(_PEER_URLS)
        if kept:
            self.peer_urls = kept.decode().split(",")

    async def set_peer_urls(self, urls: list[str]) -> None:
        self.peer_urls = urls
        await self.store.set_meta(_PEER_URLS, ",".join(urls).encode())

    async def _kept(self, name: str) -> int:
        if name not in self.store.meta:
            await self.store.set_meta(name, b"%d" % (secrets.randbits(63) | 1))
        return int(self.store.meta[name])

    def header(self, revision: int = 0) -> Any:
        return pb.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.id,
            revision=revision or self.store.revision,
            raft_term=TERM,
        )

    def message(self) -> Any:
        return pb.Member(ID=self.id, name=self.name, peerURLs=self.peer_urls, clientURLs=self.client_urls)

    @property
    def raft_index(self) -> int:
        """Something that rises with every commit, as clients expect of it."""
        return self.store.published_seq + self.store.revision
