"""DNS messages: what of them a server that makes its own answers must read and write (RFC 1035, 2782, 6891).

Only the question is read; everything else of a query but EDNS's size is of no concern here. Every broken message
is a `WireError`, whatever is wrong with it.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from berg.dns.zone import AAAA, CNAME, PTR, SOA, SRV, TXT, A, Record

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
OPT = 41
_HEADER = struct.Struct("!HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_CLASS_IN = 1


class WireError(Exception):
    pass


@dataclass(slots=True, frozen=True)
class Query:
    id: int
    name: str
    """lower case, no last dot"""
    type: int
    opcode: int
    recursion: bool
    question: bytes
    """as it came, to be sent back"""
    udp_size: int = 512
    edns: bool = False


def parse(data: bytes) -> Query:
    """Raises WireError."""
    try:
        id, flags, questions, _, _, additional = _HEADER.unpack_from(data)
        if flags & _QR or questions != 1:
            raise WireError("no query of one question")
        labels, at = [], 12
        while (size := data[at]) != 0:
            if size > 63:
                raise WireError("a compressed or overlong label in a question")
            labels.append(data[at + 1 : at + 1 + size])
            at += 1 + size
        at += 1
        if at - 12 > 255:
            raise WireError("the name is too long")
        type, _class = struct.unpack_from("!HH", data, at)
        at += 4
        if at > len(data):
            raise WireError("cut off")
        size, edns = 512, False
        if additional and data[at : at + 1] == b"\0" and data[at + 1 : at + 3] == b"\0\x29":
            size, edns = max(512, struct.unpack_from("!H", data, at + 3)[0]), True
    except (IndexError, struct.error) as e:
        raise WireError("cut off") from e
    name = b".".join(labels).decode("latin-1").lower()
    return Query(
        id, name, type, flags >> 11 & 15, bool(flags & _RD), data[12 : 12 + _question_size(labels)], size, edns
    )


def _question_size(labels: Sequence[bytes]) -> int:
    return sum(len(label) + 1 for label in labels) + 1 + 4


def answer(
    query: Query,
    code: int,
    answers: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    authoritative: bool = True,
    limit: int = 65535,
) -> bytes:
    """The reply. When it is longer than `limit`, one that is cut off and says so (TC)."""
    names: dict[str, int] = {query.name: 12} if query.name else {}
    flags = _QR | query.opcode << 11 | (_AA if authoritative else 0) | (_RD if query.recursion else 0) | _RA | code
    out = bytearray(_HEADER.pack(query.id, flags, 1, len(answers), len(authority), len(additional) + query.edns))
    out += query.question
    for record in (*answers, *authority, *additional):
        _write(out, record, names)
    if query.edns:
        out += struct.pack("!BHHIH", 0, OPT, 1232, 0, 0)
    if len(out) <= limit:
        return bytes(out)
    short = bytearray(_HEADER.pack(query.id, flags | _TC, 1, 0, 0, int(query.edns))) + query.question
    if query.edns:
        short += struct.pack("!BHHIH", 0, OPT, 1232, 0, 0)
    return bytes(short)


def failure(data: bytes, code: int) -> bytes | None:
    """The reply to what could not be parsed; None when not even its id can be told."""
    if len(data) < 12 or data[2] & 0x80:
        return None
    return data[:2] + struct.pack("!HHHHH", _QR | (data[2] & 0x78) << 8 | code, 0, 0, 0, 0)


def _write(out: bytearray, record: Record, names: dict[str, int]) -> None:
    _name(out, record.name, names)
    out += struct.pack("!HHI", record.type, _CLASS_IN, record.ttl_s)
    place = len(out)
    out += b"\0\0"
    match record.type, record.data:
        case (t, str(text)) if t in (A, AAAA):
            out += ipaddress.ip_address(text).packed
        case (t, str(text)) if t in (CNAME, PTR):
            _name(out, text, names)
        case (t, str(text)) if t == TXT:
            out += bytes([len(text)]) + text.encode()
        case (t, (priority, weight, port, target)) if t == SRV:
            out += struct.pack("!HHH", priority, weight, port)
            _name(out, target, {})  # RFC 2782: the target is not compressed
        case (t, str(text)) if t == SOA:
            primary, mailbox, *numbers = text.split()
            _name(out, primary, names)
            _name(out, mailbox, names)
            out += struct.pack("!5I", *map(int, numbers))
        case _:
            raise WireError(f"a record of type {record.type} can't be written")
    struct.pack_into("!H", out, place, len(out) - place - 2)


def _name(out: bytearray, name: str, names: dict[str, int]) -> None:
    while name:
        at = names.get(name)
        if at is not None:
            out += struct.pack("!H", 0xC000 | at)
            return
        if len(out) < 0x3FFF:
            names[name] = len(out)
        label, _, name = name.partition(".")
        encoded = label.encode("latin-1")[:63]
        out += bytes([len(encoded)]) + encoded
    out += b"\0"
