"""Codecs: JSON, YAML, protobuf, CBOR. Golden files are upstream's: `*.pb` is byte for byte what `*.json` is."""

from __future__ import annotations

import copy
from pathlib import Path

import cbor2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.machinery import duration, schema
from berg.machinery.codec import cbor, json, protobuf, wire, yaml

GOLDEN = sorted((Path(__file__).parents[2] / "data/protobuf").glob("*.json"))


# ---- JSON -----------------------------------------------------------------------------------------------


def test_head_comes_first() -> None:
    assert json.dumps({"spec": 1, "metadata": {}, "apiVersion": "v1", "kind": "X"}) == (
        b'{"kind":"X","apiVersion":"v1","metadata":{},"spec":1}'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a"}', "invalid character '}' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"a":1}x', "invalid character 'x' after top-level value"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (b"nulx", "invalid character 'x' in literal null (expecting 'l')"),
        (b"NaN", "invalid character 'N' looking for beginning of value"),
        (b'"\n"', "invalid character '\\n' in string literal"),
        (b"[" * 100_000, "exceeded max depth"),
        (b"[" * 300 + b"]" * 300, "exceeded max depth"),
    ],
)
def test_syntax_faults_are_gos(text: bytes, message: str) -> None:
    with pytest.raises(json.SyntaxFault) as fault:
        json.loads(text)
    assert str(fault.value) == message


def test_wrong_utf8_becomes_replacement_characters() -> None:
    assert json.loads(b'["\xff", "\\ud800"]') == ["\ufffd", "\ufffd"]


def test_duplicate_fields() -> None:
    assert json.loads_strict(b'{"a":1,"b":{"a":2}}') == ({"a": 1, "b": {"a": 2}}, [])
    obj, faults = json.loads_strict(b'{"spec": {"a": [{"b": 1, "b": 2}], "a": 3}, "x": 1}')
    assert obj == {"spec": {"a": 3}, "x": 1}
    assert faults == ['duplicate field "spec.a[0].b"', 'duplicate field "spec.a"']


# ---- YAML -----------------------------------------------------------------------------------------------


def test_scalars_as_go_yaml_resolves_them() -> None:
    text = """
    yes: on
    octal: 0777
    octal2: 0o17
    hex: 0xff
    grouped: 1_000
    date: 2020-01-01
    time: 2020-01-01T00:00:00Z
    exponent: 1e3
    fraction: .5
    quoted: '1'
    tagged: !!str 5
    base60: 12:30
    nothing:
    tilde: ~
    08: not octal
    1.5: float key
    version: 1.10.0
    """
    assert yaml.loads(text) == {
        "true": True,
        "octal": 511,
        "octal2": 15,
        "hex": 255,
        "grouped": 1000,
        "date": "2020-01-01",
        "time": "2020-01-01T00:00:00Z",
        "exponent": 1000,
        "fraction": 0.5,
        "quoted": "1",
        "tagged": "5",
        "base60": "12:30",
        "nothing": None,
        "tilde": None,
        "8": "not octal",
        "1.5": "float key",
        "version": "1.10.0",
    }


def test_aliases_and_merge_keys() -> None:
    loaded = yaml.loads("base: &b {p: 1, q: 2}\nnew:\n  <<: *b\n  q: 3\n")
    assert loaded == {"base": {"p": 1, "q": 2}, "new": {"p": 1, "q": 3}}
    loaded = yaml.loads("a: &x {l: [1]}\nb: *x\n")
    loaded["b"]["l"].append(2)
    assert loaded["a"] == {"l": [1]}, "an alias is a copy"


def test_hostile_yaml() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text, message in (
        (bomb, "yaml: document contains excessive aliasing"),
        ("[" * 50_000, "yaml: exceeded max depth"),
        ("a: *x", "yaml: unknown anchor 'x' referenced"),
        ("a: .inf", "json: unsupported value: +Inf"),
        ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
        ("a: b: c", "yaml: mapping values are not allowed"),
    ):
        with pytest.raises(yaml.SyntaxFault) as fault:
            yaml.loads(text)
        assert str(fault.value).startswith(message)


def test_yaml_duplicates_and_documents() -> None:
    obj, faults = yaml.loads_strict("a: 1\nb: 2\na: 3\n")
    assert obj == {"a": 3, "b": 2}
    assert faults == ['yaml: unmarshal errors:\n  line 3: key "a" already set in map']
    assert list(yaml.loads_all("a: 1\n---\n# nothing\n---\nb: 2\n")) == [{"a": 1}, {"b": 2}]


def test_yaml_out() -> None:
    obj = {"kind": "X", "a": [{"b": 1, "c": ["x"]}], "s": "yes", "n": "1", "e": {}, "t": "a\nb\n"}
    text = yaml.dumps(obj)
    assert yaml.loads(text) == obj
    assert text.startswith(b"a:\n- b: 1\n  c:\n  - x\n")


# ---- protobuf -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden(path: Path) -> None:
    obj = orjson.loads(path.read_bytes())
    raw = path.with_suffix(".pb").read_bytes()
    assert protobuf.loads(raw) == obj
    assert protobuf.dumps(obj) == raw
    group, _, version = obj["apiVersion"].rpartition("/")
    type_ = schema.type_of(group, version, obj["kind"])
    assert type_
    again = copy.deepcopy(obj)
    assert schema.decode(type_, again) == []
    assert again == obj, "decoding JSON changes nothing that is already canonical"


def test_absent_values_are_written_as_upstream_does() -> None:
    """Scalars that are no pointers are always there, pointers only when set."""
    raw = protobuf.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    meta = b"\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00"
    body = b"\x0a" + bytes([len(meta)]) + meta
    assert raw == b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12" + bytes([len(body)]) + body + b"\x1a\x00\x22\x00"
    assert protobuf.loads(raw) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def test_protobuf_faults() -> None:
    with pytest.raises(wire.Malformed, match="expected prefix"):
        protobuf.loads(b"{}")
    with pytest.raises(protobuf.NoProtobuf):
        protobuf.dumps({"apiVersion": "example.com/v1", "kind": "Widget"})
    with pytest.raises(wire.Malformed):
        protobuf.loads(b"k8s\x00\x0a\xff\xff\xff\xff\x0f")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(GOLDEN) - 1), st.integers(0, 2000))
def test_damaged_protobuf_is_malformed_or_read(noise: bytes, which: int, at: int) -> None:
    raw = GOLDEN[which].with_suffix(".pb").read_bytes()
    damaged = raw[:at] + noise + raw[at + len(noise) :]
    try:
        protobuf.loads(damaged)
    except (wire.Malformed, protobuf.NoProtobuf):
        pass


def test_watch_event_frame() -> None:
    obj = protobuf.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})
    frame = protobuf.watch_event("ADDED", obj)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    event = protobuf.loads_message(schema.type_named("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"), frame[4:])
    assert event == {"type": "ADDED", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}}}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0s", 0), ("1h30m0s", 5_400_000_000_000), ("1.5s", 1_500_000_000), ("300ms", 300_000_000), ("-2µs", -2_000)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert duration.parse(text) == nanoseconds
    assert duration.show(nanoseconds) == text
    with pytest.raises(ValueError, match='time: invalid duration "x"'):
        duration.parse("x")


# ---- CBOR -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_cbor_round_trip(path: Path) -> None:
    obj = orjson.loads(path.read_bytes())
    assert cbor.loads(cbor.dumps(obj)) == obj
    assert cbor.loads(cbor2.dumps(obj)) == obj, "text strings are read too"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"\x9f",
        b"\x5f\x61a\xff",
        b"\xc1\x41a",
        b"\xf7",
        b"\x81" * 300,
        b"\xa2\x41a\x01\x41a\x02",
        b"\xfb\x7f\xf0" + bytes(6),
        b"\x5b" + b"\xff" * 8,
        b"\xf7\x00",
    ],
)
def test_cbor_that_is_refused(raw: bytes) -> None:
    with pytest.raises(cbor.Malformed):
        cbor.loads(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"\x9f\x01\x02\xff", [1, 2]),
        (b"\xbf\x41a\x5f\x41b\x42cd\xff\xff", {"a": "bcd"}),
        (cbor2.dumps(cbor2.CBORTag(1, 1.5)), "1970-01-01T00:00:01.5Z"),
        (cbor2.dumps(cbor2.CBORTag(0, "2026-01-01T00:00:00Z")), "2026-01-01T00:00:00Z"),
        (cbor2.dumps(cbor2.CBORTag(4711, [1])), [1]),
    ],
)
def test_cbor_that_others_write(raw: bytes, value: object) -> None:
    assert cbor.loads(raw) == value


def test_cbor_numbers_are_short() -> None:
    numbers = [0, 23, 24, -1, 65536, 1.5, 0.1, 100000.0, 1e300]
    written = cbor.dumps({"n": numbers})
    assert list(cbor2.loads(written)[b"n"]) == numbers
    assert written == cbor.MAGIC + b"\xa1\x41n" + cbor2.dumps(numbers, canonical=True)


def test_cbor_watch_events() -> None:
    frame = cbor.watch_event("ADDED", {"kind": "Pod"})
    assert cbor.loads(frame) == {"type": "ADDED", "object": {"kind": "Pod"}}
    assert frame.count(cbor.MAGIC) == 2


def test_cbor_bytes_look_like_base64() -> None:
    assert cbor.loads(cbor2.dumps({"data": cbor2.CBORTag(22, b"hello")})) == {"data": "aGVsbG8="}


@pytest.mark.parametrize("field", ["spec.capacity", "metadata.creationTimestamp", "metadata.managedFields.fieldsV1"])
def test_numbers_in_the_place_of_messages_are_malformed(field: str) -> None:
    """Found by a fuzzer: the inner records of maps, times and raw values may be of any wire type."""
    number = wire.varint(1 << 3) + wire.varint(5) + wire.varint(2 << 3) + wire.varint(5)  # 1: 5, 2: 5
    quantity = wire.record(2, wire.varint(1 << 3) + wire.varint(5))
    body = {
        "spec.capacity": wire.record(2, wire.record(1, wire.record(1, b"a") + quantity)),
        "metadata.creationTimestamp": wire.record(1, wire.record(8, wire.record(1, number))),
        "metadata.managedFields.fieldsV1": wire.record(1, wire.record(17, wire.record(7, number))),
    }[field]
    type_ = schema.type_of("", "v1", "PersistentVolume")
    assert type_ is not None
    with pytest.raises(wire.Malformed):
        protobuf.loads_message(type_, body)
