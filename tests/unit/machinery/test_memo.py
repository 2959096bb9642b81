"""What is remembered of values that come again, and what never is."""

from __future__ import annotations

from berg.machinery.memo import MOST_BYTES, Memo, key_of


def test_the_oldest_goes_first() -> None:
    memo: Memo[int] = Memo(2)
    for n in range(3):
        memo.put(key_of({"n": n}), n)
    assert [memo.get(key_of({"n": n})) for n in range(3)] == [None, 1, 2]


def test_what_is_long_or_no_json_is_not_kept() -> None:
    memo: Memo[bool] = Memo()
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    for value in ("x" * MOST_BYTES, 1 << 70, deep):
        memo.put(key_of(value), True)
        assert memo.get(key_of(value)) is None
