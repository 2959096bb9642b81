"""The embedded engine: etcd's data model in memory, durable through SQLite (see `engine`)."""

from berg.storage.embedded.compaction import AutoCompaction
from berg.storage.embedded.engine import EmbeddedStore

__all__ = ["AutoCompaction", "EmbeddedStore"]
