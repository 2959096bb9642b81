"""Encryption at rest: upstream's EncryptionConfiguration, byte for byte the same in the store.

`load(path)` reads the file; the `Encryption` it gives knows each resource's transformer and is started and closed
with the API server (KMS plugins are asked in between).
"""

from berg.storage.encryption.config import Encryption, InvalidConfiguration, load
from berg.storage.encryption.figures import describe
from berg.storage.encryption.reload import Reloading

__all__ = ["Encryption", "InvalidConfiguration", "Reloading", "describe", "load"]
