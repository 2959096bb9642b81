"""Chains of ways to read a stored value, and the first of them to write it.

Every ciphertext names its provider and key in a clear prefix (`k8s:enc:aescbc:v1:KEY:`). A chain tries each member
whose prefix fits; what was not read by the first member is stale: writing the object again stores it with the first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from berg.storage.encryption.figures import transformed
from berg.storage.transform import TransformError

ENCRYPTED = b"k8s:enc:"
NONCE_BYTES = 12
BLOCK_BYTES = 16
_SHORT = "the stored data was shorter than the required size"


class Provider(Protocol):
    def encrypt(self, key: bytes, value: bytes) -> bytes: ...

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        """(value, stale). Raises TransformError."""
        ...


@dataclass(slots=True, frozen=True)
class Prefixed:
    prefix: bytes
    provider: Provider


class Chain:
    def __init__(self, members: Sequence[Prefixed], no_match: str) -> None:
        self._members = members
        self._no_match = no_match

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        first, started = self._members[0], perf_counter()
        well = False
        try:
            found = first.prefix + first.provider.encrypt(key, value)
            well = True
        finally:
            transformed("to_storage", key, first.prefix, started, well=well)
        return found

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        failed: list[str] = []
        for i, member in enumerate(self._members):
            if not data.startswith(member.prefix):
                continue
            started = perf_counter()
            try:
                value, stale = member.provider.decrypt(key, data[len(member.prefix) :])
            except TransformError as e:
                if member.prefix:
                    failed.append(str(e))
                transformed("from_storage", key, member.prefix, started, well=False)
                continue
            transformed("from_storage", key, member.prefix, started, well=True)
            return value, stale or i > 0
        raise TransformError(", ".join(failed) or self._no_match)


class Identity:
    """No encryption. Refuses to read what is encrypted, so that the next member is tried."""

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        return value

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        if data.startswith(ENCRYPTED):
            raise TransformError("identity transformer tried to read encrypted data")
        return data, False


class AesGcm:
    """Authenticated, bound to the storage key. Keys wear out after some 2**32 writes: rotate them."""

    def __init__(self, secret: bytes) -> None:
        self._aead = AESGCM(secret)

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, value, key)

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        if len(data) < NONCE_BYTES:
            raise TransformError(_SHORT)
        try:
            return self._aead.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], key), False
        except InvalidTag:
            raise TransformError("cipher: message authentication failed") from None


class AesCbc:
    """Not authenticated: kept because stores hold it."""

    def __init__(self, secret: bytes) -> None:
        self._algorithm = algorithms.AES(secret)

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        iv = os.urandom(BLOCK_BYTES)
        padder = PKCS7(BLOCK_BYTES * 8).padder()
        encryptor = Cipher(self._algorithm, modes.CBC(iv)).encryptor()
        return iv + encryptor.update(padder.update(value) + padder.finalize()) + encryptor.finalize()

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        if len(data) < BLOCK_BYTES:
            raise TransformError(_SHORT)
        if len(data) % BLOCK_BYTES:
            raise TransformError("the stored data is not a multiple of the block size")
        decryptor = Cipher(self._algorithm, modes.CBC(data[:BLOCK_BYTES])).decryptor()
        padded = decryptor.update(data[BLOCK_BYTES:]) + decryptor.finalize()
        unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize(), False
        except ValueError:
            raise TransformError("invalid padding on input") from None
