"""Configurations of networks from strangers."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from berg.network.cni.configuration import BadConfiguration, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LISTS = st.fixed_dictionaries(
    {},
    optional={
        "cniVersion": JSON | st.sampled_from(["1.0.0", "0.4.0", "9.9.9", ""]),
        "name": JSON | st.just("net"),
        "type": JSON | st.just("bridge"),
        "disableCheck": JSON,
        "plugins": st.lists(
            JSON
            | st.fixed_dictionaries({"type": JSON | st.just("bridge")}, optional={"capabilities": JSON, "ipam": JSON}),
            max_size=3,
        ),
    },
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(LISTS | JSON)
def test_configurations(written: Any) -> None:
    with contextlib.suppress(BadConfiguration):
        for plugin in parse(written, "here").plugins:
            kind = plugin["type"]
            assert "/" not in kind and kind not in ("", ".", "..")
