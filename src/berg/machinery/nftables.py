"""nftables in process: commands as `nft -f` reads them, one call is one transaction, all of it or nothing.

libnftables comes with nft; calling it spares a process for each change. Where it can't be loaded, nft itself is run.
The library is not safe to use from two threads, not even with two contexts: one lock serves all.

A context belongs to the network namespace in which it was made. `run` uses one of this process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import threading
from functools import cache


class NftError(Exception):
    """The kernel or the parser refused; nothing of the transaction was done."""


_lock = threading.Lock()


@cache
def _library() -> ctypes.CDLL | None:
    for name in ("libnftables.so.1", ctypes.util.find_library("nftables")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is None:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for function in (library.nft_ctx_buffer_error, library.nft_ctx_buffer_output, library.nft_ctx_free):
            function.argtypes = [ctypes.c_void_p]
        for function in (library.nft_ctx_get_error_buffer, library.nft_ctx_get_output_buffer):
            function.argtypes = [ctypes.c_void_p]
            function.restype = ctypes.c_char_p
        return library
    return None


class Nft:
    """One context: what it knows of the ruleset is kept between calls."""

    def __init__(self) -> None:
        self._library = _library()
        self._context: int | None = None
        if self._library is not None:
            with _lock:
                self._context = self._library.nft_ctx_new(0)
                self._library.nft_ctx_buffer_error(self._context)
                self._library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> str:
        """What the commands print. Raises NftError."""
        if self._library is None:
            return _run_program(commands)
        with _lock:
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            error = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(error.decode(errors="replace").strip()[:2000] or "nftables refused")
        return bytes(output).decode()

    def close(self) -> None:
        if self._library is not None and self._context:
            with _lock:
                self._library.nft_ctx_free(self._context)
            self._context = None


@cache
def _own() -> Nft:
    return Nft()


def run(commands: str) -> str:
    """With this process' own context. Raises NftError."""
    return _own().run(commands)


def _run_program(commands: str) -> str:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=commands, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NftError("nftables is not installed: neither libnftables nor nft") from None
    if done.returncode:
        raise NftError(done.stderr.strip())
    return done.stdout
