"""Names of images, and layers, from strangers."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from berg.runtime.own.images.names import InvalidName, image_id, parse

NAMES = st.text("abAB01-_./:@", max_size=40) | st.text(max_size=20)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(NAMES | NAMES.map("registry.k8s.io/{}".format) | NAMES.map(("a@sha256:" + "0" * 64 + "{}").format))
def test_a_name_once_read_reads_the_same(text: str) -> None:
    image_id(text)
    with contextlib.suppress(InvalidName):
        name = parse(text)
        assert parse(str(name)) == name
        assert ".." not in name.repository.split("/")
