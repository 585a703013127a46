"""Pairs as integers against pairs as tuples."""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.augmentation.pairs import among, keys, place_in_group, with_common_codes
from llm_i2i.schema import decode

PAIRS = st.lists(st.tuples(st.sampled_from(["b", "a", "ä", "aa"]), st.sampled_from(["2", "10", "1"])), min_size=1)


@given(PAIRS, PAIRS)
@settings(max_examples=30, deadline=None)
def test_keys_compare_as_pairs_do(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    tables = [pd.DataFrame(rows, columns=["user_id", "item_id"]).astype("str") for rows in (one, other)]
    a, b = with_common_codes(*tables)
    assert decode(a["user_id"]).tolist() == [user for user, _ in one]
    assert among(a, b).tolist() == [pair in other for pair in one]
    found = sorted(zip(keys(a).tolist(), one, strict=True))
    assert [pair for _, pair in found] == sorted(one)
    assert place_in_group(a["user_id"]).tolist() == [
        sum(user == above for above, _ in one[:n]) for n, (user, _) in enumerate(one)
    ]
