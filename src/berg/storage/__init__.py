"""The store, whatever holds it: `open` gives one by its address.

memory:                              in this process, gone with it
/path/to/store, or file:/path        the embedded engine's file
https://10.0.0.1:2379,https://…      a real etcd cluster
"""

from __future__ import annotations

from pathlib import Path

from berg.machinery.clock import Clock
from berg.storage.embedded.compaction import AutoCompaction
from berg.storage.interface import Store

DEFAULT_HISTORY_BYTES = 128 << 20


def open(
    target: str,
    *,
    clock: Clock | None = None,
    quota_bytes: int = 8 << 30,
    compaction_interval_s: float = 300.0,
    history_bytes: int = DEFAULT_HISTORY_BYTES,
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
    probe_timeout_s: float = 2.0,
) -> Store:
    """The store at `target`, not started. `compaction_interval_s` 0: whoever else uses the store compacts it.

    The embedded engine also compacts before its time when the history it keeps grows beyond `history_bytes`.
    """
    if "://" in target:
        from berg.storage.etcd.client import EtcdStore

        return EtcdStore(
            target.split(","),
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            clock=clock,
            compaction_interval_s=compaction_interval_s,
            probe_timeout_s=probe_timeout_s,
        )
    from berg.storage.embedded.engine import EmbeddedStore

    path = None if target in ("memory:", ":memory:") else Path(target.removeprefix("file:"))
    auto = None
    if compaction_interval_s:
        auto = AutoCompaction("periodic", retention_s=compaction_interval_s, history_bytes=history_bytes)
    return EmbeddedStore(path, clock=clock, quota_bytes=quota_bytes, auto_compaction=auto)
