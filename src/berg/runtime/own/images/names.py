"""Image names: `nginx` is `docker.io/library/nginx:latest`.

Source: the distribution project's reference grammar; the normalisation is Docker's, which Kubernetes shares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DOCKER_HUB = "docker.io"

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)
_ID = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{64})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class InvalidName(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class Name:
    domain: str
    path: str
    tag: str
    """Empty when a digest names the image alone."""
    digest: str

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def tagged(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else ""

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Name:
    """Raises InvalidName."""
    first, slash, rest = text.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        domain, remainder = DOCKER_HUB, text
    else:
        domain, remainder = first, rest
    if domain == "index.docker.io":
        domain = DOCKER_HUB
    if domain == DOCKER_HUB and "/" not in remainder:
        remainder = f"library/{remainder}"
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None or match["domain"] is None or len(match["path"]) > 255:
        raise InvalidName(f'invalid reference format: "{text}"')
    digest = match["digest"] or ""
    if digest and not _DIGEST.fullmatch(digest):
        raise InvalidName(f'invalid reference format: unsupported digest in "{text}"')
    tag = match["tag"] or ("" if digest else "latest")
    return Name(match["domain"], match["path"], tag, digest)


def image_id(text: str) -> str:
    """`sha256:HEX` when the text is an image ID, else the empty string."""
    match = _ID.fullmatch(text)
    return f"sha256:{match['hex']}" if match else ""
