"""The log's records: how one change is written down, and read back.

A log row is a run of records, all of one commit. A record is a type byte, a fixed head and its bytes; numbers
are little-endian. The row's checksum stands beside it in the table, so records carry none of their own.

    PUT      mod create version lease  key value
    DELETE   mod                       key
    GRANT    lease ttl
    REVOKE   lease
    COMPACT  revision
    META     name value                   what is not a key: alarms, users (an empty value removes it)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from berg.storage.interface import KeyValue

_PUT = struct.Struct("<BQQQqII")
_DELETE = struct.Struct("<BQI")
_GRANT = struct.Struct("<Bqq")
_REVOKE = struct.Struct("<Bq")
_COMPACT = struct.Struct("<BQ")
_META = struct.Struct("<BII")


@dataclass(slots=True, frozen=True)
class Grant:
    lease: int
    ttl_s: int


@dataclass(slots=True, frozen=True)
class Revoke:
    lease: int


@dataclass(slots=True, frozen=True)
class Compact:
    revision: int


@dataclass(slots=True, frozen=True)
class Meta:
    name: str
    value: bytes


Record = KeyValue | Grant | Revoke | Compact | Meta
"""A KeyValue of version 0 is a deletion (etcd's tombstone)."""


class BadRecord(ValueError):
    """The bytes are not a run of whole records."""


def encode(record: Record) -> bytes:
    if isinstance(record, KeyValue):
        key, value = record.key, record.value
        if not record.version:
            return _DELETE.pack(2, record.mod_revision, len(key)) + key
        head = _PUT.pack(
            1, record.mod_revision, record.create_revision, record.version, record.lease, len(key), len(value)
        )
        return b"".join((head, key, value))
    if isinstance(record, Grant):
        return _GRANT.pack(3, record.lease, record.ttl_s)
    if isinstance(record, Revoke):
        return _REVOKE.pack(4, record.lease)
    if isinstance(record, Compact):
        return _COMPACT.pack(5, record.revision)
    name = record.name.encode()
    return _META.pack(6, len(name), len(record.value)) + name + record.value


def decode(data: bytes) -> Iterator[Record]:
    """The records of one row, in order. Raises BadRecord."""
    at, end = 0, len(data)
    try:
        while at < end:
            kind = data[at]
            if kind == 1:
                _, mod, create, version, lease, key_size, value_size = _PUT.unpack_from(data, at)
                at += _PUT.size
                middle = at + key_size
                yield KeyValue(data[at:middle], data[middle : middle + value_size], create, mod, version, lease)
                at = middle + value_size
            elif kind == 2:
                _, mod, key_size = _DELETE.unpack_from(data, at)
                at += _DELETE.size
                yield tombstone(data[at : at + key_size], mod)
                at += key_size
            elif kind == 3:
                _, lease, ttl_s = _GRANT.unpack_from(data, at)
                yield Grant(lease, ttl_s)
                at += _GRANT.size
            elif kind == 4:
                yield Revoke(_REVOKE.unpack_from(data, at)[1])
                at += _REVOKE.size
            elif kind == 5:
                yield Compact(_COMPACT.unpack_from(data, at)[1])
                at += _COMPACT.size
            elif kind == 6:
                _, name_size, value_size = _META.unpack_from(data, at)
                at += _META.size
                middle = at + name_size
                yield Meta(data[at:middle].decode(), data[middle : middle + value_size])
                at = middle + value_size
            else:
                raise BadRecord(f"unknown record type {kind} at byte {at}")
    except struct.error as e:
        raise BadRecord(f"record cut off at byte {at}") from e
    if at != end:
        raise BadRecord(f"last record is {at - end} bytes short")


def tombstone(key: bytes, revision: int) -> KeyValue:
    return KeyValue(key, b"", 0, revision, 0)
