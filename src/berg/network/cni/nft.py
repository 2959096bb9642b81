"""Runs nftables commands: in process through libnftables, which comes with nft, else through nft itself.

A text of commands is one transaction: all of it or nothing.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import threading
from functools import lru_cache


class NftError(Exception):
    pass


_lock = threading.Lock()


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    for name in ("libnftables.so.1", ctypes.util.find_library("nftables")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for function in (library.nft_ctx_buffer_output, library.nft_ctx_buffer_error):
            function.argtypes = [ctypes.c_void_p]
        for function in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
            function.restype = ctypes.c_char_p
            function.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        return library, context
    return None


def run(commands: str) -> str:
    """Returns what nft prints; raises NftError with its complaint."""
    found = _library()
    if found is None:
        return _run_program(commands)
    library, context = found
    with _lock:
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        output = library.nft_ctx_get_output_buffer(context) or b""
        error = library.nft_ctx_get_error_buffer(context) or b""
    if failed:
        raise NftError(error.decode(errors="replace").strip() or "nftables refused")
    return bytes(output).decode()


def _run_program(commands: str) -> str:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=commands, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NftError("nftables is not installed: neither libnftables nor nft") from None
    if done.returncode:
        raise NftError(done.stderr.strip())
    return done.stdout
