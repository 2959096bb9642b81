"""`/debug/pprof/`: where this process spends its time and what it holds, in pprof's own format, so that
`go tool pprof https://…/debug/pprof/profile` reads it; with `?debug=1` as text.

    profile    stacks of the event loop's thread, sampled a hundred times a second for `seconds`
    goroutine  every asyncio task and every thread, and where it waits
    heap       objects by type, as the garbage collector knows them (allocs is the same)

Source: net/http/pprof, github.com/google/pprof proto/profile.proto (names and numbers).
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import sys
import threading
import time
from collections import Counter
from types import FrameType

from berg.apiserver.http.message import Request, Response
from berg.machinery.codec.wire import varint

ROOT = "/debug/pprof"
INTERVAL_S = 0.01
LONGEST_S = 300.0
_MOST = 128
_KINDS = {
    "allocs": "Objects by type, as the garbage collector knows them",
    "cmdline": "The command line of this process",
    "goroutine": "Stacks of all tasks and threads. Use debug=2 for each on its own.",
    "heap": "Objects by type, as the garbage collector knows them",
    "profile": "CPU profile. The seconds GET parameter says for how long.",
    "symbol": "Function names are in the profiles themselves.",
    "threadcreate": "Stacks of all threads",
}

Place = tuple[str, str, int]
"""function, file, line"""
Stack = tuple[Place, ...]
"""innermost first"""
Rows = list[tuple[Stack, tuple[int, ...]]]


async def handle(request: Request) -> Response | None:
    name = request.path.removeprefix(ROOT)
    if not name:
        body = f'<a href="{ROOT}/">Found</a>.\n\n'.encode()
        return Response(302, body, "text/html; charset=utf-8", {"Location": f"{ROOT}/"})
    debug = request.arg("debug")
    match name[1:]:
        case "":
            return Response(200, _index(), "text/html; charset=utf-8", {"X-Content-Type-Options": "nosniff"})
        case "cmdline":
            return _text("\0".join(sys.argv))
        case "symbol":
            return _text("num_symbols: 1\n")
        case "profile":
            try:
                seconds = min(float(request.arg("seconds") or 30), LONGEST_S)
            except ValueError:
                seconds = 30.0
            found = await _sampled(seconds)
            kinds = [("samples", "count"), ("cpu", "nanoseconds")]
            period = int(INTERVAL_S * 1e9)
            rows: Rows = [(stack, (count, count * period)) for stack, count in found.items()]
            return _binary("profile", encode(kinds, rows, duration_ns=int(seconds * 1e9), period=period))
        case "goroutine" | "threadcreate":
            tasks = [] if name == "/threadcreate" else _tasks()
            stacks = [*tasks, *_threads()]
            if debug:
                return _text(_written(name[1:], stacks, each=debug == "2"))
            rows = [(stack, (count,)) for stack, count in Counter(s for _, s in stacks).items()]
            return _binary(name[1:], encode([(name[1:], "count")], rows))
        case "heap" | "allocs":
            types = _objects()
            if debug:
                lines = [f"{count}: {size} {kind}\n" for kind, (count, size) in types]
                return _text(f"heap profile: objects: bytes type\n{''.join(lines)}")
            rows = [(((kind, "", 0),), held) for kind, held in types]
            return _binary("heap", encode([("inuse_objects", "count"), ("inuse_space", "bytes")], rows))
    headers = {"X-Content-Type-Options": "nosniff", "X-Go-Pprof": "1"}
    return Response(404, b"Unknown profile\n", "text/plain; charset=utf-8", headers)


# ---- looking


async def _sampled(seconds: float) -> Counter[Stack]:
    found: Counter[Stack] = Counter()
    watched, stop = threading.get_ident(), threading.Event()

    def sample() -> None:
        while not stop.wait(INTERVAL_S):
            frame = sys._current_frames().get(watched)
            if frame is not None:
                found[_stack(frame)] += 1

    thread = threading.Thread(target=sample, name="profile", daemon=True)
    thread.start()
    try:
        await asyncio.sleep(seconds)
    finally:
        stop.set()
    return found


def _stack(frame: FrameType | None) -> Stack:
    places: list[Place] = []
    while frame is not None and len(places) < _MOST:
        places.append((frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(places)


def _tasks() -> list[tuple[str, Stack]]:
    return [(f"task {t.get_name()}", _waiting(t)) for t in asyncio.all_tasks()]


def _waiting(task: asyncio.Task[object]) -> Stack:
    """Down the coroutines that it waits in; the innermost comes first."""
    places: list[Place] = []
    at: object = task.get_coro()
    while at is not None and len(places) < _MOST:
        frame = getattr(at, "cr_frame", None) or getattr(at, "ag_frame", None) or getattr(at, "gi_frame", None)
        if isinstance(frame, FrameType):
            places.append((frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno))
        at = getattr(at, "cr_await", None) or getattr(at, "ag_await", None) or getattr(at, "gi_yieldfrom", None)
    return tuple(reversed(places))


def _threads() -> list[tuple[str, Stack]]:
    names = {t.ident: t.name for t in threading.enumerate()}
    return [(f"thread {names.get(i, i)}", _stack(frame)) for i, frame in sys._current_frames().items()]


def _objects() -> list[tuple[str, tuple[int, int]]]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for obj in gc.get_objects():
        kind = type(obj)
        name = f"{kind.__module__}.{kind.__qualname__}"
        counts[name] += 1
        sizes[name] += sys.getsizeof(obj)
    return [(name, (counts[name], size)) for name, size in sizes.most_common()]


# ---- telling


def encode(
    kinds: list[tuple[str, str]],
    rows: Rows,
    *,
    duration_ns: int = 0,
    period: int = 0,
) -> bytes:
    """A pprof `Profile`, not yet compressed. `kinds`: what the numbers of a row are, and their units."""
    texts: dict[str, int] = {"": 0}
    places: dict[Place, int] = {}
    functions: dict[tuple[str, str], int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    out = [_message(1, _number(1, text(kind)) + _number(2, text(unit))) for kind, unit in kinds]
    for stack, values in rows:
        ids = b"".join(varint(places.setdefault(place, len(places) + 1)) for place in stack)
        out.append(_message(2, _message(1, ids) + _message(2, b"".join(map(varint, values)))))
    for (name, file, line), number in places.items():
        function = functions.setdefault((name, file), len(functions) + 1)
        out.append(_message(4, _number(1, number) + _message(4, _number(1, function) + _number(2, line))))
    for (name, file), number in functions.items():
        shown = text(name)
        out.append(_message(5, _number(1, number) + _number(2, shown) + _number(3, shown) + _number(4, text(file))))
    if period:
        out.append(_message(11, _number(1, text("cpu")) + _number(2, text("nanoseconds"))) + _number(12, period))
    out.append(_number(9, time.time_ns()) + _number(10, duration_ns))
    out += [_message(6, value.encode()) for value in texts]
    return b"".join(out)


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def _binary(name: str, data: bytes) -> Response:
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(200, gzip.compress(data, 1), "application/octet-stream", headers)


def _text(text: str) -> Response:
    return Response(200, text.encode(), "text/plain; charset=utf-8", {"X-Content-Type-Options": "nosniff"})


def _written(kind: str, stacks: list[tuple[str, Stack]], *, each: bool) -> str:
    lines = [f"{kind} profile: total {len(stacks)}\n"]
    if each:
        named = [(name, stack) for name, stack in stacks]
    else:
        named = [(f"{count} @", stack) for stack, count in Counter(s for _, s in stacks).most_common()]
    for name, stack in named:
        lines.append(f"{name}\n" + "".join(f"#\t{f}\t{file}:{line}\n" for f, file, line in stack) + "\n")
    return "".join(lines)


def _index() -> bytes:
    rows = "".join(
        f"<tr><td><a href='{kind}?debug=1'>{kind}</a></td><td>{what}</td></tr>\n" for kind, what in _KINDS.items()
    )
    head = f"<html>\n<head>\n<title>{ROOT}/</title>\n</head>\n"
    page = f"{head}<body>\n{ROOT}/<br>\n<table>\n{rows}</table>\n</body>\n</html>\n"
    return page.encode()
