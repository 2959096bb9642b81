"""The stores of a server: one for all resources, others for those that `--etcd-servers-overrides` names.

    apps/deployments#https://10.0.0.1:2379;https://10.0.0.2:2379      one resource on these servers
    /events#/var/lib/berg/events.db                                   the core group has no name

Each store has its own revisions, so a resource version compares only with others of its resource, as upstream's.

Source: k8s.io/apiserver pkg/server/options/etcd.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berg.apiserver.config import Config

if TYPE_CHECKING:
    from berg.apiserver.health import Health

_INVALID = (
    "--etcd-servers-overrides invalid, must be of format: group/resource#servers, where servers are URLs, "
    "semicolon separated"
)


class Stores:
    def __init__(self, config: Config) -> None:
        self._config = config
        self.main: Any = config.store
        self.others: list[Any] = []
        """in the order in which the flag first names them"""
        self.of: dict[tuple[str, str], Any] = {}
        """(group, plural) → the store of a resource that is not in the main one"""

    async def open(self) -> None:
        """Raises StoreError, ValueError. `close` is for what was opened, even then."""
        config = self._config
        overrides = dict(map(_override, config.etcd_servers_overrides))
        if self.main is None:
            target = ",".join(config.etcd_servers) or str(_state_file(config.data_dir))
            self.main = self._make(target)
            await self.main.start()
        same: dict[frozenset[str], Any] = {}
        for name, servers in overrides.items():
            store = same.get(frozenset(servers))
            if store is None:
                store = same[frozenset(servers)] = self._make(",".join(servers))
                await store.start()
                self.others.append(store)
            self.of[name] = store

    async def close(self) -> None:
        own = [] if self.main is None or self._config.store is not None else [self.main]
        await asyncio.gather(*(store.close() for store in (*own, *self.others)))

    def __iter__(self) -> Iterator[Any]:
        return iter((self.main, *self.others))

    def fault(self) -> str | None:
        """Why the main store cannot be used."""
        return _fault(self.main, self._config.etcd_healthcheck_timeout_s)

    def checked(self, health: Health) -> None:
        config = self._config
        for i, store in enumerate(self):
            which, suffix = ("-override", f"-{i - 1}") if i else ("", "")
            name, readiness = f"etcd{which}{suffix}", f"etcd{which}-readiness{suffix}"
            health.add(name, partial(_fault, store, config.etcd_healthcheck_timeout_s))
            health.add(readiness, partial(_fault, store, config.etcd_readycheck_timeout_s), paths=("/readyz",))

    def _make(self, target: str) -> Any:
        from berg import storage

        config = self._config
        return storage.open(
            target,
            clock=config.clock,
            ca_file=config.etcd_cafile,
            cert_file=config.etcd_certfile,
            key_file=config.etcd_keyfile,
            compaction_interval_s=config.etcd_compaction_interval_s,
            probe_timeout_s=max(config.etcd_healthcheck_timeout_s, config.etcd_readycheck_timeout_s),
        )


def _override(text: str) -> tuple[tuple[str, str], list[str]]:
    name, servers = text.split("#") if text.count("#") == 1 else ("", "")
    found = servers.split(";")
    if name.count("/") != 1 or not all(found):
        raise ValueError(_INVALID)
    group, plural = name.split("/")
    return (group, plural), found


def _fault(store: Any, timeout_s: float) -> str | None:
    """An engine in this process has no faults: it fails its writers instead."""
    within = getattr(store, "fault_within", None)
    return None if within is None else within(timeout_s)


def _state_file(data_dir: str) -> Path:
    directory = Path(data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "state.db"
