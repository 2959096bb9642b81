"""What the configuration says about the listening port's TLS, as one context.

Source: k8s.io/apiserver pkg/server/options/serving.go, k8s.io/component-base cli/flag/namedcertkey_flag.go.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from berg.apiserver.config import Config
from berg.apiserver.http import tls
from berg.apiserver.http.tls import BadTLSOption

_MOST_GOAWAYS = 0.02


class BadConnectionOption(ValueError):
    """A flag about connections that cannot be followed."""


def context(config: Config) -> ssl.SSLContext:
    """Raises BadTLSOption, OSError, ssl.SSLError."""
    main = _context(config, config.tls_cert_file, config.tls_private_key_file)
    if config.tls_sni_cert_key:
        # what was named outright comes before what a certificate says of itself
        given = sorted(map(named_certificate, config.tls_sni_cert_key), key=lambda g: not g[2])
        tls.serve_names(main, [(_context(config, cert, key), names or _names(cert)) for cert, key, names in given])
    return main


def goaway_chance(config: Config) -> float:
    """Raises BadConnectionOption."""
    if not 0 <= config.goaway_chance <= _MOST_GOAWAYS:
        raise BadConnectionOption(f"--goaway-chance can not be less than 0 or greater than {_MOST_GOAWAYS}")
    return config.goaway_chance


def files(config: Config) -> list[str]:
    """The files that are loaded again when they change."""
    return [config.tls_cert_file, config.tls_private_key_file]


def named_certificate(text: str) -> tuple[str, str, list[str]]:
    """`CERT,KEY[:PATTERN,PATTERN]`. Raises BadTLSOption."""
    pair, _, patterns = text.partition(":")
    parts = pair.split(",")
    if len(parts) != 2 or not all(parts):
        raise BadTLSOption("expected comma separated certificate and key file paths")
    return parts[0], parts[1], [p for p in patterns.split(",") if p]


def _context(config: Config, cert: str, key: str) -> ssl.SSLContext:
    authorities = [f for f in (config.client_ca_file, config.requestheader_client_ca_file) if f]
    return tls.server_context(
        cert,
        key,
        authorities,
        min_version=config.tls_min_version,
        cipher_suites=config.tls_cipher_suites,
        curves=config.tls_curve_preferences,
        protocols=tls.PROTOCOLS if not config.disable_http2_serving else ("http/1.1",),
    )


def _names(cert_file: str) -> Sequence[str]:
    """Whom a certificate is for."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    certificate = x509.load_pem_x509_certificates(Path(cert_file).read_bytes())[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
