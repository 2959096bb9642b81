"""What lies between an object's JSON and the bytes in the store: media type and encryption.

A `Transformer` is asked for every value that is written or read. Its answer to `to_storage` is what the store
keeps; `from_storage` takes whatever earlier configurations left there. The storage key is authenticated data:
a ciphertext that somebody moved to another key does not decrypt.

Without one, values are JSON; what a real etcd or a snapshot holds in protobuf is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import orjson

PROTOBUF_MAGIC = b"k8s\x00"
CBOR_MAGIC = b"\xd9\xd9\xf7"


class TransformError(Exception):
    """The stored bytes cannot be read: damaged, or encrypted with a key that is not configured."""


class Transformer(Protocol):
    def to_storage(self, key: bytes, value: bytes) -> bytes:
        """`value` is the object as canonical JSON."""
        ...

    def from_storage(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        """(JSON or protobuf, whether writing the same object again would store it in another form). Raises
        TransformError."""
        ...

    async def prepare(self, values: Iterable[bytes]) -> None:
        """Fetches what is needed to read `values`, before anyone asks for them."""
        ...


class Protobuf:
    """`--storage-media-type=application/vnd.kubernetes.protobuf`, with or without encryption behind it. Kinds that
    have no protobuf form (custom resources) stay JSON."""

    def __init__(self, then: Transformer | None = None) -> None:
        self._then = then

    def to_storage(self, key: bytes, value: bytes) -> bytes:
        from berg.machinery.codec import protobuf

        try:
            value = protobuf.dumps(orjson.loads(value))
        except protobuf.NoProtobuf:
            pass
        return value if self._then is None else self._then.to_storage(key, value)

    def from_storage(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        return (data, False) if self._then is None else self._then.from_storage(key, data)

    async def prepare(self, values: Iterable[bytes]) -> None:
        if self._then is not None:
            await self._then.prepare(values)


class CBOR:
    """Custom resources where the gate CBORServingAndStorage is on."""

    def __init__(self, then: Transformer | None = None) -> None:
        self._then = then

    def to_storage(self, key: bytes, value: bytes) -> bytes:
        from berg.machinery.codec import cbor

        value = cbor.dumps(orjson.loads(value))
        return value if self._then is None else self._then.to_storage(key, value)

    def from_storage(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        return (data, False) if self._then is None else self._then.from_storage(key, data)

    async def prepare(self, values: Iterable[bytes]) -> None:
        if self._then is not None:
            await self._then.prepare(values)


Adopt = Callable[[dict[str, Any]], None]
"""Makes an object that somebody else wrote what Berg would have written, in place."""


def decode_value(data: bytes, head: bytes = b'{"kind":"', adopt: Adopt | None = None) -> bytes:
    """A stored value as canonical JSON: `kind`, `apiVersion`, `metadata` first, no resourceVersion.

    Bytes that Berg wrote begin with `head` and come back as they are; upstream's end in a newline. Raises
    TransformError.
    """
    ours = data.startswith(head) and b'"metadata":{' in data[:400]
    if ours and (adopt is None or not data.endswith(b"\n")):
        return data
    try:
        if data.startswith(PROTOBUF_MAGIC):
            from berg.machinery.codec import protobuf

            obj = protobuf.loads(data)
        elif data.startswith(CBOR_MAGIC):
            from berg.machinery.codec import cbor

            obj = cbor.loads(data)
        else:
            obj = orjson.loads(data)
        if adopt is not None:
            adopt(obj)
        metadata = dict(obj.get("metadata") or {})
        metadata.pop("resourceVersion", None)
        ordered = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": metadata}
        return orjson.dumps({**ordered, **obj, "metadata": metadata})
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise TransformError(f"the stored value is no object: {e}") from e
