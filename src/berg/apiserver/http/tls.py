"""TLS of the listening port.

Any client certificate is let through the handshake, as upstream does: a client whose certificate is from an unknown
authority, or out of its time, is answered with 401 instead of a broken connection. Python's `ssl` can only ask for
a certificate together with verifying it, so what OpenSSL would do is replaced underneath it, once per context.
Where that cannot be done (another Python than CPython, an `_ssl` without the symbols), OpenSSL verifies against the
authorities, and a certificate from elsewhere ends the handshake.

Source: k8s.io/apiserver pkg/server/options/serving.go, pkg/server/secure_serving.go.
"""

from __future__ import annotations

import ctypes
import logging
import ssl
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
_CURVES = {"23": "P-256", "24": "P-384", "25": "P-521", "29": "X25519", "4588": "X25519MLKEM768"}
"""CurveID → OpenSSL's name"""

PROTOCOLS = ("h2", "http/1.1")
"""which of them a connection speaks that could speak both: the first, here as upstream"""

_VERIFY_PEER = 1
_SET_GROUPS_LIST = 92
_DER = 2
_Verify = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_accept_any = _Verify(lambda _store, _argument: 1)  # lives as long as the process: contexts point to it


class BadTLSOption(ValueError):
    """A flag about TLS that cannot be followed."""


_NO_TLS = b"Client sent an HTTP request to an HTTPS server.\n"
_NO_TLS_ANSWER = b"HTTP/1.0 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(_NO_TLS), _NO_TLS)


class _Handshake(ssl.SSLObject):
    """A handshake that tells the client why it fails: with OpenSSL's alert, or in plain HTTP to who speaks that.

    asyncio throws away what is to be sent when a handshake fails. One that only waits has it sent; it fails when it
    is asked again, which is when the client closes, or when its time is over.
    """

    outgoing: ssl.MemoryBIO
    _fault: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._fault is not None:
            raise self._fault
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as e:
            self._fault = e
            if e.reason == "WRONG_VERSION_NUMBER":  # no TLS at all: nobody who would understand an alert
                raise
            if e.reason == "HTTP_REQUEST":
                self.outgoing.write(_NO_TLS_ANSWER)
            raise ssl.SSLWantReadError from None


class _Context(ssl.SSLContext):
    sslobject_class = _Handshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, *args, **named)
        assert isinstance(made, _Handshake)
        made.outgoing = outgoing
        return made


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    remote: str
    certificate: bytes | None
    """DER"""
    intermediates: tuple[bytes, ...]


def server_context(
    cert_file: str,
    key_file: str,
    client_ca_files: Sequence[str] = (),
    *,
    min_version: str = "",
    cipher_suites: Sequence[str] = (),
    curves: Sequence[str] = (),
    protocols: Sequence[str] = PROTOCOLS,
) -> ssl.SSLContext:
    """Raises BadTLSOption, OSError, ssl.SSLError."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    if min_version and min_version not in VERSIONS:
        raise BadTLSOption(f'unknown tls version "{min_version}"')
    context.minimum_version = VERSIONS[min_version or "VersionTLS12"]
    context.load_cert_chain(cert_file, key_file)
    context.set_alpn_protocols(list(protocols))
    context.num_tickets = 0  # Go's, Python's and curl's clients never come back with one; two cost 0.4 of 1.1 ms
    if cipher_suites:
        context.set_ciphers(":".join(_openssl_name(c) for c in cipher_suites))
    if curves:
        _set_curves(context, curves)
    for path in client_ca_files:
        context.load_verify_locations(path)
    if client_ca_files:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not _take_any_certificate(context):
            log.info("client certificates of unknown authorities end the handshake here, without a 401")
    return context


def serve_names(context: ssl.SSLContext, others: Sequence[tuple[ssl.SSLContext, Sequence[str]]]) -> None:
    """`--tls-sni-cert-key`: clients that ask for one of the names get the context that has it; `*.x` for any
    name of one more label."""
    exact: dict[str, ssl.SSLContext] = {}
    wild: dict[str, ssl.SSLContext] = {}
    for other, names in others:
        for name in names:
            (wild if name.startswith("*.") else exact).setdefault(name.removeprefix("*.").lower(), other)

    def choose(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
        if name is not None:
            found = exact.get(name.lower()) or wild.get(name.lower().partition(".")[2])
            if found is not None:
                connection.context = found

    context.sni_callback = choose


def intermediates(connection: Any) -> tuple[bytes, ...]:
    """What the client sent behind its own certificate, DER."""
    chain = getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", None)
    found = chain() if chain is not None else None
    return tuple(c.public_bytes(_DER) for c in (found or ())[1:] if c is not None)


def _take_any_certificate(context: ssl.SSLContext) -> bool:
    lib = _openssl()
    if lib is None:
        return False
    pointer = _pointer(context)
    lib.SSL_CTX_get_verify_mode.argtypes = [ctypes.c_void_p]
    if lib.SSL_CTX_get_verify_mode(pointer) != _VERIFY_PEER:  # not what was just set: not that structure
        return False
    lib.SSL_CTX_set_cert_verify_callback.argtypes = [ctypes.c_void_p, _Verify, ctypes.c_void_p]
    lib.SSL_CTX_set_cert_verify_callback.restype = None
    lib.SSL_CTX_set_cert_verify_callback(pointer, _accept_any, None)
    return True


def _set_curves(context: ssl.SSLContext, curves: Sequence[str]) -> None:
    unknown = [c for c in curves if c not in _CURVES]
    if unknown:
        raise BadTLSOption(f"unsupported tls curve preference {unknown[0]}")
    lib = _openssl()
    if lib is None:
        raise BadTLSOption("--tls-curve-preferences needs an OpenSSL whose functions can be called")
    lib.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    lib.SSL_CTX_ctrl.restype = ctypes.c_long
    names = ":".join(_CURVES[c] for c in curves)
    if lib.SSL_CTX_ctrl(_pointer(context), _SET_GROUPS_LIST, 0, names.encode()) != 1:
        raise BadTLSOption(f"OpenSSL does not have all of the curves {names}")


def _openssl() -> ctypes.CDLL | None:
    """The OpenSSL that Python's own `ssl` uses."""
    if sys.implementation.name != "cpython":
        return None
    import _ssl

    try:
        lib = ctypes.CDLL(getattr(_ssl, "__file__", None))
        return lib if lib.SSL_CTX_set_cert_verify_callback and lib.SSL_CTX_get_verify_mode else None
    except (OSError, AttributeError):
        return None


def _pointer(context: ssl.SSLContext) -> ctypes.c_void_p:
    """The SSL_CTX of a context: the first field of its structure, behind the object's head."""
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__)


def _openssl_name(suite: str) -> str:
    """TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 → ECDHE-RSA-AES128-GCM-SHA256. Raises BadTLSOption."""
    if suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        return suite  # TLS 1.3: always on, as in Go
    exchange, with_, cipher = suite.removeprefix("TLS_").partition("_WITH_")
    if not with_ or not suite.startswith("TLS_"):
        raise BadTLSOption(f"Cipher suite {suite} not supported or doesn't exist")
    key = "" if exchange == "RSA" else exchange.replace("_", "-") + "-"
    cipher = cipher.replace("AES_128", "AES128").replace("AES_256", "AES256").replace("CBC_", "")
    if cipher.startswith("CHACHA20"):
        cipher = "CHACHA20-POLY1305"
    if cipher == "3DES_EDE_SHA":
        cipher = "DES-CBC3-SHA"
    return key + cipher.replace("_", "-")
