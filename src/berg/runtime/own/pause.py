"""The process that holds a shared PID namespace: the only thing a sandbox ever runs.

A PID namespace lives as long as its first process, which also inherits every orphan. This one ignores SIGCHLD, so the
kernel reaps orphans by itself, and sleeps. It is written as machine code (there is no image to take it from, and
nothing smaller: one page of memory) in the smallest ELF file the kernel takes.

    rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8)
    again: ppoll(NULL, 0, NULL, NULL); goto again
"""

from __future__ import annotations

import os
import platform
import struct

from berg.runtime.own import syscalls as sc
from berg.runtime.own.launcher import StrayThread

_BASE = 0x400000
_HEADERS = 64 + 56
_SIGCHLD = 17


def elf() -> bytes | None:
    """The program for this machine, or None where nobody has written it yet."""
    builder = {"x86_64": _x86_64, "aarch64": _aarch64}.get(platform.machine())
    return builder() if builder else None


def _x86_64() -> bytes:
    def code(action: int) -> bytes:
        return b"".join(
            (
                b"\xb8" + struct.pack("<I", 13),  # mov eax, SYS_rt_sigaction
                b"\xbf" + struct.pack("<I", _SIGCHLD),  # mov edi, SIGCHLD
                b"\xbe" + struct.pack("<I", action),  # mov esi, action
                b"\x31\xd2",  # xor edx, edx
                b"\x41\xba" + struct.pack("<I", 8),  # mov r10d, 8
                b"\x0f\x05",  # syscall
                b"\xb8" + struct.pack("<I", 34),  # again: mov eax, SYS_pause
                b"\x0f\x05",  # syscall
                b"\xeb\xf7",  # jmp again
            )
        )

    length = len(code(0))
    return _file(62, code(_BASE + _HEADERS + length))


def _aarch64() -> bytes:
    def move(register: int, value: int) -> list[int]:
        low = 0xD2800000 | (value & 0xFFFF) << 5 | register
        high = 0xF2A00000 | (value >> 16 & 0xFFFF) << 5 | register
        return [low, high]

    def code(action: int) -> bytes:
        words = [
            *move(8, 134),  # rt_sigaction
            *move(0, _SIGCHLD),
            *move(1, action),
            *move(2, 0),
            *move(3, 8),
            0xD4000001,  # svc 0
            *move(0, 0),  # again: ppoll(NULL, 0, NULL, NULL)
            *move(1, 0),
            *move(2, 0),
            *move(3, 0),
            *move(8, 73),
            0xD4000001,  # svc 0
            0x14000000 | (-11 & 0x3FFFFFF),  # b again
        ]
        return struct.pack(f"<{len(words)}I", *words)

    length = len(code(0))
    return _file(183, code(_BASE + _HEADERS + length))


def _file(machine: int, code: bytes) -> bytes:
    # struct sigaction as the kernel has it: handler (SIG_IGN), flags, restorer, mask.
    data = code + struct.pack("<QQQQ", 1, 0, 0, 0)
    size = _HEADERS + len(data)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identity + header + program + data


NAME = "berg-pause"


def spawn(program: str, sandbox: str) -> int:
    """Starts the process in a PID namespace of its own; for the launcher thread. The caller reaps it. The sandbox is
    among its arguments, so that one whose number was never noted can be found."""
    home = os.open("/proc/thread-self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sc.unshare(sc.CLONE_NEWPID)  # for children only: the thread itself stays where it is
        try:
            actions = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
            return os.posix_spawn(program, [NAME, sandbox], {}, file_actions=actions, setsid=True)
        finally:
            try:
                sc.setns(home, sc.CLONE_NEWPID)
            except OSError as error:
                raise StrayThread(str(error)) from error
    finally:
        os.close(home)


def install(path: str) -> str:
    """Writes the program to a file, unless it is there. Raises OSError."""
    program = elf()
    if program is None:
        raise OSError(f"sharing a PID namespace is not supported on {platform.machine()}")
    try:
        with open(path, "rb") as file:
            if file.read() == program:
                return path
    except FileNotFoundError:
        pass
    with open(path + ".new", "wb") as file:
        file.write(program)
    os.chmod(path + ".new", 0o755)
    os.replace(path + ".new", path)
    return path
