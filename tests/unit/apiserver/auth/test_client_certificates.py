"""Client certificates over real TLS: the wrong ones are answered with 401, not with a broken connection."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from berg.apiserver.auth.authentication import Unauthorized
from berg.apiserver.auth.certificates import X509, Authorities, RequestHeader
from berg.apiserver.http.message import Request, Response
from berg.apiserver.http.server import HTTPServer
from berg.apiserver.http.tls import BadTLSOption, serve_names, server_context
from berg.machinery import pki

NOW = datetime.now(UTC)
OURS, THEIRS, PROXY = (pki.CertificateAuthority.create(name) for name in ("ours", "theirs", "proxy"))


def _signed(
    name: str, by: Any, *, starts: int = -1, ends: int = 1, is_authority: bool = False, server_only: bool = False
) -> tuple[Any, Any]:
    """(certificate, key); `starts`, `ends`: days from now. `by`: (certificate, key) of who signs."""
    key = pki.new_key()
    authority, signing = by
    usage = ExtendedKeyUsageOID.SERVER_AUTH if server_only else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = (
        x509.CertificateBuilder()
        .subject_name(pki.subject(name, ["dev"]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=starts))
        .not_valid_after(NOW + timedelta(days=ends))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return certificate, key


def _root(authority: pki.CertificateAuthority) -> tuple[Any, Any]:
    return x509.load_pem_x509_certificate(authority.pair.certificate), pki.load_key(authority.pair.key)


def _der(certificate: Any) -> bytes:
    return bytes(certificate.public_bytes(serialization.Encoding.DER))


class Case:
    """A server that says who came, and clients with certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ours.crt"
        self.ca.write_bytes(OURS.certificate)
        self.authorities = Authorities(str(self.ca))
        pair = OURS.issue("server", names=["localhost", "127.0.0.1"], server=True)
        self.cert, self.key = pair.write(directory, "server")
        self.context = server_context(str(self.cert), str(self.key), [str(self.ca)])
        self.server = HTTPServer(self._who, host="127.0.0.1", tls=self.context)

    async def _who(self, request: Request) -> Response:
        try:
            user = X509(self.authorities).authenticate(request)
        except Unauthorized as e:
            return Response(401, str(e).encode())
        return Response(200, orjson.dumps(user.name if user else None))

    async def come(self, *chain: Any, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[int, str]:
        """`chain`: (certificate, key), then certificates that are sent with it."""
        context = ssl.create_default_context(cadata=OURS.certificate.decode())
        context.maximum_version = version
        if chain:
            (leaf, key), *others = chain
            file = self.directory / "client.pem"
            pem = [c.public_bytes(serialization.Encoding.PEM) for c in (leaf, *others)]
            file.write_bytes(b"".join(pem) + pki.key_pem(key))
            context.load_cert_chain(file)
        url = f"https://127.0.0.1:{self.server.port}/"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as response:
            return response.status, (await response.read()).decode()


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    it = Case(tmp_path)
    await it.server.start()
    yield it
    await it.server.stop()


UNKNOWN = (401, "x509: certificate signed by unknown authority")
OUT_OF_TIME = (401, "x509: certificate has expired or is not yet valid")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_who_comes_in(case: Case, version: ssl.TLSVersion) -> None:
    assert await case.come(_signed("jane", _root(OURS)), version=version) == (200, '"jane"')
    assert await case.come(version=version) == (200, "null")
    assert await case.come(_signed("jane", _root(THEIRS)), version=version) == UNKNOWN


async def test_certificates_out_of_their_time(case: Case) -> None:
    assert await case.come(_signed("late", _root(OURS), starts=-2, ends=-1)) == OUT_OF_TIME
    assert await case.come(_signed("early", _root(OURS), starts=1, ends=2)) == OUT_OF_TIME


async def test_certificates_for_servers_are_none_for_clients(case: Case) -> None:
    assert await case.come(_signed("web", _root(OURS), server_only=True)) == UNKNOWN


async def test_intermediates_that_the_client_sends(case: Case) -> None:
    middle = _signed("middle", _root(OURS), is_authority=True)
    leaf = _signed("jane", middle)
    assert await case.come(leaf, middle[0]) == (200, '"jane"')
    assert await case.come(leaf) == UNKNOWN
    no_authority = _signed("middle", _root(OURS))
    assert await case.come(_signed("jane", no_authority), no_authority[0]) == UNKNOWN
    expired = _signed("middle", _root(OURS), starts=-3, ends=-1, is_authority=True)
    assert await case.come(_signed("jane", expired), expired[0]) == OUT_OF_TIME


async def test_an_authority_that_is_exchanged(case: Case) -> None:
    theirs = _signed("joe", _root(THEIRS))
    assert await case.come(theirs) == UNKNOWN
    case.ca.write_bytes(THEIRS.certificate)
    case.authorities.reload()
    assert await case.come(theirs) == (200, '"joe"')
    assert await case.come(_signed("jane", _root(OURS))) == UNKNOWN


def _request(chain: Any = None, **headers: str) -> Request:
    der = _der(chain[0]) if chain else None
    return Request("GET", "/", headers={k.replace("_", "-"): v for k, v in headers.items()}, peer_certificate=der)


def test_a_front_proxy_names_users(tmp_path: Path) -> None:
    file = tmp_path / "proxy.crt"
    file.write_bytes(PROXY.certificate)
    method = RequestHeader(
        Authorities(str(file)), ["front"], ["X-Remote-User"], ["X-Remote-Group"], ["X-Remote-Extra-"], ["X-Remote-Uid"]
    )
    front = _signed("front", _root(PROXY))
    request = _request(
        front, x_remote_user="jane", x_remote_group="a\nb", x_remote_uid="7", x_remote_extra_acme_2eorg="v", other="o"
    )
    user = method.authenticate(request)
    assert user is not None
    assert (user.name, user.uid, user.groups) == ("jane", "7", ("a", "b"))
    assert request.headers == {"other": "o"}
    assert method.authenticate(_request(front)) is None
    assert method.authenticate(_request(x_remote_user="jane")) is None
    for wrong, why in (
        (_signed("other", _root(PROXY)), "x509: subject with cn=other is not in the allowed list"),
        (_signed("front", _root(OURS)), "x509: certificate signed by unknown authority"),
    ):
        with pytest.raises(Unauthorized) as caught:
            method.authenticate(_request(wrong, x_remote_user="jane"))
        assert str(caught.value) == why


# ---- what the flags say about TLS


async def test_certificates_by_name(tmp_path: Path) -> None:
    def context(name: str) -> ssl.SSLContext:
        cert, key = OURS.issue(name, names=[name], server=True).write(tmp_path, name)
        return server_context(str(cert), str(key))

    main = context("main.example")
    serve_names(main, [(context("one.example"), ["one.example"]), (context("wild.example"), ["*.wild.example"])])

    async def hello(_: Request) -> Response:
        return Response(200, b"{}")

    server = HTTPServer(hello, host="127.0.0.1", tls=main)
    await server.start()

    async def shown(name: str) -> str:
        import asyncio

        client = ssl.create_default_context(cadata=OURS.certificate.decode())
        client.check_hostname = False
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client, server_hostname=name)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(names[0].value)

    assert await shown("one.example") == "one.example"
    assert await shown("a.wild.example") == "wild.example"
    assert await shown("a.b.wild.example") == "main.example"
    await server.stop()


def test_versions_ciphers_and_curves(tmp_path: Path) -> None:
    cert, key = (str(p) for p in OURS.issue("x", names=["x"], server=True).write(tmp_path, "x"))
    suites = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]
    context = server_context(cert, key, min_version="VersionTLS13", cipher_suites=suites, curves=["29", "23"])
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert [c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.2"] == ["ECDHE-RSA-AES128-GCM-SHA256"]
    for wrong, why in (
        ({"min_version": "TLS1"}, 'unknown tls version "TLS1"'),
        ({"cipher_suites": ["AES"]}, "Cipher suite AES not supported or doesn't exist"),
        ({"curves": ["1"]}, "unsupported tls curve preference 1"),
    ):
        with pytest.raises(BadTLSOption) as caught:
            server_context(cert, key, **wrong)  # type: ignore[arg-type]
        assert str(caught.value) == why
