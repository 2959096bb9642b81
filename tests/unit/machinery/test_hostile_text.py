"""Texts from strangers: quantities, selectors, durations, times, expressions. What can be read is read as others
read it; what cannot is refused in the way that its callers know."""

from __future__ import annotations

import string
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berg.machinery import clock, duration, fields, names, quantity
from berg.machinery.cel import CompileError, CostExceeded, Environment, EvaluationError
from berg.machinery.cel.types import DYN
from berg.machinery.labels import Selector
from berg.machinery.status import ApiError

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
ANY_TEXT = st.text(max_size=40)
SUFFIXES = ["", *"numkMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-2", "e0", "i", "K", "mm"]
NUMBERS = st.from_regex(r"[+-]?([0-9]{1,19}(\.[0-9]{0,12})?|\.[0-9]{1,12})", fullmatch=True)
QUANTITIES = st.builds(str.__add__, NUMBERS, st.sampled_from(SUFFIXES))


@QUICK
@given(QUANTITIES)
def test_quantities_as_the_python_client_reads_them(text: str) -> None:
    from kubernetes.utils.quantity import parse_quantity

    try:
        own = quantity.parse(text)
    except ValueError:
        return
    if not text.endswith(("i", "e3", "E-2", "e0")) and (text[-1:] in "nu" or "K" in text[-1:]):
        return  # the client does not know these, or knows another
    theirs = parse_quantity(text.lstrip("+"))
    scale = Decimal(10) ** -9
    wanted = theirs if abs(theirs) < 2**60 and theirs == theirs.quantize(scale) else None
    if wanted is not None:
        assert quantity.parse(quantity.canonical(text)).milli() == own.milli()
        assert Decimal(quantity.value(text)) == wanted.to_integral_value(
            "ROUND_CEILING" if wanted > 0 else "ROUND_FLOOR"
        )


@QUICK
@given(QUANTITIES | ANY_TEXT)
def test_canonical_quantities_stay_as_they_are(text: str) -> None:
    try:
        once = quantity.canonical(text)
    except ValueError:
        return
    assert quantity.canonical(once) == once
    assert len(once) < 60


LABEL = st.text("abAB01-_./ ", max_size=8)
TERMS = st.one_of(
    st.builds("{}{}{}".format, LABEL, st.sampled_from(["=", "==", "!=", " in ", " notin ", ">", "<", "! "]), LABEL),
    st.builds("{} in ({})".format, LABEL, LABEL),
    st.builds("{} notin ({},{})".format, LABEL, LABEL, LABEL),
    LABEL,
    ANY_TEXT,
)


@QUICK
@given(st.lists(TERMS, max_size=4).map(",".join), st.dictionaries(LABEL, LABEL, max_size=3))
def test_label_selectors(text: str, labels: dict[str, str]) -> None:
    try:
        selector = Selector.parse(text)
    except (ApiError, ValueError):
        return
    shown = str(selector)
    if "()" in shown:
        return  # of no value but the empty one, which cannot be written so
    again = Selector.parse(shown)
    assert str(again) == shown
    assert again.matches(labels) == selector.matches(labels)


@QUICK
@given(st.lists(TERMS, max_size=4).map(",".join))
def test_field_selectors(text: str) -> None:
    try:
        selector = fields.parse(text)
    except (ApiError, ValueError):
        return
    assert selector.matches(lambda _: "a") in (True, False)


@QUICK
@given(st.from_regex(r"-?([0-9]{1,6}(\.[0-9]{1,4})?(ns|us|µs|ms|s|m|h)){1,3}", fullmatch=True) | ANY_TEXT)
def test_durations(text: str) -> None:
    try:
        own = duration.parse(text)
    except ValueError:
        return
    assert duration.parse(duration.show(own)) == own


@QUICK
@given(st.datetimes(timezones=st.timezones()) | ANY_TEXT | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T.{8,12}"))
def test_times(given_: Any) -> None:
    text = given_ if isinstance(given_, str) else given_.isoformat()
    try:
        moment = clock.parse_rfc3339(text)
    except ValueError:
        return
    assert clock.parse_rfc3339(clock.rfc3339_micro(moment)) == moment


@QUICK
@given(ANY_TEXT | st.text(string.ascii_letters + string.digits + "-._/", max_size=70))
def test_names_are_judged(text: str) -> None:
    for judge in (
        names.dns1123_label,
        names.dns1123_subdomain,
        names.qualified_name,
        names.label_value,
        names.path_segment,
    ):
        assert all(isinstance(said, str) and said for said in judge(text))


TOKENS = st.sampled_from(
    ["self", ".a", ".b", "[0]", "[self]", "(", ")", "+", "-", "*", "/", "%", "==", "!", "&&", "||", "?", ":", ",", "1",
     "1.5", "2u", "'x'", "b'y'", "true", "null", "has(", "size(", ".map(x, ", ".all(x, ", ".matches('a*')", "{", "}",
     "[", "]", "9223372036854775807", "duration('1h')", "quantity('1')", " in ", "string(", "int(", "dyn(", "\\", "\n"]
)  # fmt: skip


@QUICK
@given(st.lists(TOKENS, max_size=14).map("".join) | ANY_TEXT)
def test_expressions(text: str) -> None:
    try:
        expression = Environment({"self": DYN}).compile(text)
    except CompileError as e:
        assert str(e)
        return
    try:
        expression.evaluate({"self": {"a": [1, "x", {"b": None}], "b": 2.5}}, limit=100_000)
    except (EvaluationError, CostExceeded):
        pass


@pytest.mark.parametrize("text", ["(" * 5000, "[" * 5000, "!" * 5000, "a." * 5000 + "a", "1+" * 9000])
def test_deep_expressions_are_refused(text: str) -> None:
    with pytest.raises(CompileError):
        Environment({"a": DYN}).compile(text)
