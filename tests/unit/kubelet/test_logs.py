"""Reading the CRI log format as `kubectl logs` asks for it."""

import asyncio
from datetime import UTC, datetime

import pytest

from berg.kubelet import logs
from berg.kubelet.server import logs as reading
from berg.kubelet.server.http import Request
from berg.kubelet.server.logs import LogError, Options, Reader


def line(second, text, stream="stdout", tag="F"):
    return f"2026-01-01T00:00:{second:02d}.000000000Z {stream} {tag} {text}\n"


async def read(path, running=False, **options):
    async def alive():
        return running

    return b"".join([c async for c in Reader(path, Options(**options), alive).chunks()]).decode()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "0.log"
    path.write_text(line(1, "one") + line(2, "tw", tag="P") + line(2, "o") + line(3, "err", "stderr") + line(4, "four"))
    return path


async def test_all_of_it(path):
    assert await read(path) == "one\ntwo\nerr\nfour\n"
    assert await read(path, stream=b"stderr") == "err\n"
    assert await read(path, timestamps=True, tail=1) == "2026-01-01T00:00:04.000000000Z four\n"


async def test_tail_since_and_limit(path):
    assert await read(path, tail=2) == "err\nfour\n"
    assert await read(path, tail=0) == ""
    assert await read(path, since="2026-01-01T00:00:03Z") == "err\nfour\n"
    assert await read(path, limit=5) == "one\nt"


async def test_rotated_files_come_first(path):
    (path.parent / "0.log.20260101-000000").write_text(line(0, "zero"))
    assert (await read(path)).startswith("zero\none\n")
    assert await read(path, tail=6) == "zero\none\ntwo\nerr\nfour\n"


async def test_following_through_a_rotation(path):
    alive = True

    async def running():
        return alive

    got = []

    async def follow():
        async for chunk in Reader(path, Options(follow=True, tail=1), running).chunks():
            got.append(chunk)

    task = asyncio.ensure_future(follow())
    while not got:  # noqa: ASYNC110
        await asyncio.sleep(0)
    path.rename(path.parent / "0.log.1")
    path.write_text(line(5, "five"))
    while len(got) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    alive = False
    with path.open("a") as f:
        f.write(line(6, "six"))
    await task
    assert b"".join(got) == b"four\nfive\nsix\n"


def test_an_unfinished_line_waits(tmp_path):
    path = tmp_path / "x"
    path.write_text("whole\nhal")
    with path.open("rb") as f:
        assert list(logs.read_lines(f)) == [b"whole\n"]
        with path.open("a") as more:
            more.write("f\n")
        assert list(logs.read_lines(f)) == [b"half\n"]


def test_the_end_of_a_large_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("".join(f"{i:06d}\n" for i in range(50_000)))
    with path.open("rb") as f:
        f.seek(logs.tail_offset(f, 30_000))
        assert f.readline() == b"020000\n"
    assert logs.last_lines(path, 3, 100) == ""  # these are no CRI lines


def test_restart_counts_from_logs(tmp_path):
    assert logs.restart_count_by_logs(tmp_path / "gone") == 0
    for name in ("0.log", "3.log", "2.log.20260101"):
        (tmp_path / name).touch()
    assert logs.restart_count_by_logs(tmp_path) == 4


def query(text):
    from urllib.parse import parse_qs

    return Request("GET", "", {}, None, None, query=parse_qs(text))


def test_options():
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    o = reading.options(query("follow=true&tailLines=5&sinceSeconds=60&limitBytes=9&stream=Stderr"), now)
    assert (o.follow, o.tail, o.since, o.limit, o.stream) == (True, 5, "2026-01-01T00:00:00Z", 9, b"stderr")
    with pytest.raises(LogError):
        reading.options(query("tailLines=x"), now)


@pytest.mark.parametrize(
    ("state", "last", "previous", "result"),
    [
        ({"running": {}}, {}, False, "1"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"containerID": "f://0"}}, False, "0"),
        ({"running": {}}, {"terminated": {"containerID": "f://0"}}, True, "0"),
        ({"terminated": {"containerID": "f://1"}}, {}, False, "1"),
    ],
)
def test_which_container(state, last, previous, result):
    s = {"name": "c", "containerID": "f://1", "state": state, "lastState": last}
    assert reading.container_id("p", {"containerStatuses": [s]}, "c", previous) == result


def test_no_container_yet():
    s = {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}
    with pytest.raises(LogError, match=r'^container "c" in pod "p" is waiting to start: ContainerCreating$'):
        reading.container_id("p", {"containerStatuses": [s]}, "c", False)
    with pytest.raises(LogError, match=r'^previous terminated container "c" in pod "p" not found$'):
        reading.container_id("p", {"containerStatuses": [s]}, "c", True)
