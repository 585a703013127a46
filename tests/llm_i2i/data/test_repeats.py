"""The sorted codes against pandas on the texts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.repeats import in_pair_order, in_time_order

ROWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3), st.integers(-2, 3)), max_size=30)


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_repeated_pairs_are_those_of_pandas(rows: list[tuple[int, int, int]]) -> None:
    table = pd.DataFrame(rows, columns=["user", "item", "time"], dtype=np.int64)
    order, again, exact = in_pair_order(*(table[name].to_numpy() for name in table))
    assert order.tolist() == table.sort_values(["user", "item", "time"], kind="stable").index.tolist()
    in_order = table.iloc[order]
    assert again.tolist() == in_order.duplicated(["user", "item"]).tolist()
    assert exact.tolist() == in_order.duplicated().tolist()


@pytest.mark.parametrize("scale", [1, 2**61])  # the larger one does not fit one key
@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_time_order_is_that_of_pandas(scale: int, rows: list[tuple[int, int, int]]) -> None:
    table = pd.DataFrame(rows, columns=["user", "item", "time"], dtype=np.int64)
    table["time"] *= scale
    order = in_time_order(table["user"].to_numpy(), table["time"].to_numpy())
    assert order.tolist() == table.sort_values(["user", "time"], kind="stable").index.tolist()
