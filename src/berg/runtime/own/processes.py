"""Processes of others: whether one is still the one that was meant, whose children it has, when it ends.

A number alone names no process for good: together with its start time it does.
"""

from __future__ import annotations

import asyncio
import os
import signal


def process_start(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def find_processes(name: str, argument: str) -> list[int]:
    """The processes that go by this name (their first argument) and have this among their arguments."""
    found = []
    for number in os.listdir("/proc"):
        if number.isdigit():
            try:
                with open(f"/proc/{number}/cmdline", "rb") as file:
                    arguments = file.read().split(b"\0")
            except OSError:
                continue
            if arguments[0] == name.encode() and argument.encode() in arguments:
                found.append(int(number))
    return found


def is_alive(pid: int, start: int) -> bool:
    return pid > 0 and start != 0 and process_start(pid) == start


def signal_number(name: str) -> int:
    """`SIGTERM`, `TERM`, `15` or `RTMIN+3`; what nobody knows is SIGTERM."""
    text = name.upper().removeprefix("SIG")
    if text.isdigit():
        return int(text)
    base, sign, offset = text.partition("+") if "+" in text else text.partition("-")
    try:
        number = signal.Signals[f"SIG{base}"].value
    except KeyError:
        return signal.SIGTERM
    return number + int(f"{sign}{offset}") if sign and offset.isdigit() else number


def collect_child(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # a child of an earlier Berg: init reaps it


async def readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)
