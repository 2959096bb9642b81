"""libnftables in process: commands as `nft -f` reads them, one call is one transaction.

Calling the library spares a process for each change and keeps its cache. It is loaded at first use; `available()`
says whether it can be.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence


class NftError(Exception):
    """The kernel or the parser refused; nothing of the transaction was done."""


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def available() -> bool:
    try:
        _library()
    except OSError:
        return False
    return True


class Nft:
    def __init__(self) -> None:
        self._library = _library()
        self._context = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_buffer_output(self._context)

    def run(self, commands: Sequence[str]) -> str:
        """What the commands print. All of them take effect at once or none. Raises NftError."""
        code = self._library.nft_run_cmd_from_buffer(self._context, "\n".join(commands).encode())
        output = (self._library.nft_ctx_get_output_buffer(self._context) or b"").decode()
        if code != 0:
            error = (self._library.nft_ctx_get_error_buffer(self._context) or b"").decode()
            raise NftError(error.strip()[:2000])
        return output

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


def delete_table(table: str) -> None:
    """Takes the table away in both families; it is fine when there is none."""
    if not available():
        return
    nft = Nft()
    try:
        nft.run([c for f in ("ip", "ip6") for c in (f"add table {f} {table}", f"delete table {f} {table}")])
    finally:
        nft.close()
