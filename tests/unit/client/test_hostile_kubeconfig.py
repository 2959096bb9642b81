"""Kubeconfig files of any content: an endpoint, or a KubeconfigError that says what is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.client.kubeconfig import Kubeconfig, KubeconfigError

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "!!", "YQ==", "/nonexistent", "\0"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_CLUSTER = "server certificate-authority-data certificate-authority proxy-url tls-server-name insecure-skip-tls-verify"
_USER = "token tokenFile client-key-data client-certificate-data username as"
FIELDS = f"{_CLUSTER} {_USER} cluster user namespace".split()
BODY = st.dictionaries(st.sampled_from(FIELDS), SCALARS | ANYTHING, max_size=4) | ANYTHING
ENTRY = (
    st.fixed_dictionaries({}, optional={"name": st.just("a") | SCALARS, "cluster": BODY, "user": BODY, "context": BODY})
    | ANYTHING
)
FILES = (
    st.fixed_dictionaries(
        {},
        optional={
            "current-context": st.just("a") | SCALARS,
            "clusters": st.lists(ENTRY, max_size=2) | ANYTHING,
            "users": st.lists(ENTRY, max_size=2) | ANYTHING,
            "contexts": st.lists(ENTRY, max_size=2) | ANYTHING,
        },
    )
    | ANYTHING
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(FILES)
def test_any_structure(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "kubeconfig"
    path.write_bytes(orjson.dumps(content))
    with contextlib.suppress(KubeconfigError):
        Kubeconfig.load(path).endpoint()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "kubeconfig"
    path.write_bytes(content)
    with contextlib.suppress(KubeconfigError):
        Kubeconfig.load(path).endpoint()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "not a kubeconfig"),
        ("clusters: x", "clusters is not a list"),
        ("clusters: [x]", "clusters[0] is not an object with a name"),
        ("users: [{name: a, user: []}]", "users[0].user is not an object"),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n"
            "clusters: [{name: a, cluster: {certificate-authority-data: '!'}}]",
            "certificate-authority-data is no base64",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(KubeconfigError) as caught:
        Kubeconfig.load(path).endpoint()
    assert told in str(caught.value)
