"""Validity statistics on rows counted by hand."""

import numpy as np
import pandas as pd
import pytest

from llm_i2i.llm.validity import validity


def rows(*pairs):
    return pd.DataFrame(pairs, columns=["user_id", "item_id"]).astype("str")


ITEMS = pd.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "bucket": ["head", "mid", "tail", "cold"],
        "is_long_tail": [False, False, True, False],
    }
)
TRAIN = rows(("u", "a"), ("v", "b"))


def test_sound_rows():
    table = rows(("u", "b"), ("u", "c"), ("v", "c"), ("v", "d"), ("w", "c"))
    found = validity(table, ITEMS, TRAIN, n_users=3, items_per_user=2)
    assert found["valid_rows"] == found["rows"] == 5
    assert found["valid_share"] == 1.0
    assert found["in_history"] == found["duplicates"] == found["outside_catalogue"] == 0
    assert found["short_users"] == 1
    assert found["distinct_items"] == 3
    assert found["share_long_tail"] == 0.6
    assert found["by_bucket"] == {"cold": 1, "mid": 1, "tail": 3}
    shares = np.array([0.2, 0.6, 0.2])
    assert found["exposure_entropy"] == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-6)
    # Mean absolute difference of (0, 1, 3, 1) over twice the mean: (16 differences sum to 18) / 16 / 2.5.
    differences = np.abs(np.subtract.outer([0, 1, 3, 1], [0, 1, 3, 1])).mean()
    assert found["exposure_gini"] == pytest.approx(differences / (2 * 1.25), abs=1e-6)


def test_unsound_rows_are_counted():
    table = rows(("u", "a"), ("u", "b"), ("u", "b"), ("v", "zzz"))
    found = validity(table, ITEMS, TRAIN, n_users=3, items_per_user=2)
    assert (found["in_history"], found["duplicates"], found["outside_catalogue"]) == (1, 1, 1)
    assert found["valid_rows"] == 1
    assert found["short_users"] == 2
