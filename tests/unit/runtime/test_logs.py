import os
from pathlib import Path

import pytest

from berg.runtime.own.inflight import InFlight
from berg.runtime.own.logs import CHUNK, MAX_PIECE, LogFile, LogPump, format_chunk, now_text


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    """(tag, content) of what `data` becomes; each must be on a line of its own with time and stream."""
    lines = format_chunk(data, b"stdout", b"T").split(b"\n")
    assert lines.pop() == b""
    parts = [line.split(b" ", 3) for line in lines]
    assert all(part[:2] == [b"T", b"stdout"] for part in parts)
    return [(part[2], part[3]) for part in parts]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one\n", [(b"F", b"one")]),
        (b"one\ntwo\n", [(b"F", b"one"), (b"F", b"two")]),
        (b"one\ntw", [(b"F", b"one"), (b"P", b"tw")]),
        (b"tw", [(b"P", b"tw")]),
        (b"\n\n", [(b"F", b""), (b"F", b"")]),
        (b"a b  c\n", [(b"F", b"a b  c")]),
        (b"a\r\n", [(b"F", b"a\r")]),
    ],
)
def test_a_record_for_each_line(data: bytes, expected: list) -> None:
    assert records(data) == expected


@pytest.mark.parametrize("size", [MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, 3 * MAX_PIECE])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nrest"])
def test_long_lines_are_cut_and_join_again(size: int, end: bytes) -> None:
    data = b"x" * size + end
    found = records(data)
    assert all(len(content) <= MAX_PIECE for _, content in found)
    assert b"".join(content + (b"\n" if tag == b"F" else b"") for tag, content in found) == data


def test_many_short_lines_in_one_chunk() -> None:
    data = b"".join(b"line %d\n" % i for i in range(10_000))
    assert len(data) > MAX_PIECE
    found = records(data)
    assert len(found) == 10_000 and found[-1] == (b"F", b"line 9999")


def test_reopening_follows_a_rotation(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a" / "log"))
    log.open()
    log.write(b"one\n", b"stdout")
    os.rename(tmp_path / "a" / "log", tmp_path / "a" / "old")
    log.write(b"two\n", b"stdout")
    log.reopen()
    log.write(b"three\n", b"stdout")
    log.close()
    log.write(b"four\n", b"stdout")
    assert (tmp_path / "a" / "old").read_bytes().count(b"\n") == 2
    assert (tmp_path / "a" / "log").read_bytes().endswith(b"F three\n")


async def test_a_pump_feeds_the_log_and_who_is_attached_and_waits_for_the_slow(tmp_path: Path) -> None:
    import asyncio

    reader, writer = os.pipe()
    log = LogFile(str(tmp_path / "log"))
    log.open()
    pump = LogPump(reader, "stdout", log)
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    busy: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def sink(data: bytes) -> asyncio.Future[None]:
        seen.put_nowait(data)
        return busy

    pump.sinks.add(sink)
    pump.start()
    os.write(writer, b"one\n")
    assert await seen.get() == b"one\n"
    os.write(writer, b"two\n")
    for _ in range(20):
        await asyncio.sleep(0)
    assert seen.empty()
    busy.set_result(None)
    assert await seen.get() == b"two\n"
    os.write(writer, b"three\n")
    os.close(writer)
    pump.drain()
    pump.close()
    log.close()
    assert seen.get_nowait() == b"three\n"
    assert [line.split(b" ", 3)[3] for line in (tmp_path / "log").read_bytes().splitlines()] == [
        b"one",
        b"two",
        b"three",
    ]


@pytest.mark.parametrize("written", [0, 20, 10_000])
async def test_what_was_read_when_berg_was_killed_is_in_the_log_once(tmp_path: Path, written: int) -> None:
    log = LogFile(str(tmp_path / "log"))
    log.open()
    log.write(b"before\n", b"stdout")
    path = str(tmp_path / "stdout.read")
    InFlight(path, CHUNK).hold(b"one\ntwo\n", log.size_bytes)
    log.close()
    whole = (tmp_path / "log").read_bytes() + format_chunk(b"one\ntwo\n", b"stdout", now_text())[:written]
    (tmp_path / "log").write_bytes(whole)  # none, some or all of it was written
    log = LogFile(str(tmp_path / "log"))
    log.open()
    reader, writer = os.pipe()
    pump = LogPump(reader, "stdout", log, InFlight(path, CHUNK))
    pump.start()
    os.write(writer, b"three\n")
    os.close(writer)
    pump.drain()
    pump.close()
    log.close()
    content = [line.split(b" ", 3)[3] for line in (tmp_path / "log").read_bytes().splitlines()]
    assert content == [b"before", b"one", b"two", b"three"]
    assert InFlight(path, CHUNK).left() is None
