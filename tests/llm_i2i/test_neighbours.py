import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i import neighbours
from llm_i2i.neighbours import Neighbours, best


def everything(places):
    return np.ones(places.shape, np.bool_)


def test_no_neighbour_is_no_recommendation():
    nothing = Neighbours([0], np.empty(0, np.int32), np.empty(0, np.float32))
    assert best(nothing, [None], decay=1.0, top_k=3, keep=everything) == ([], [])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=9), max_size=6), st.integers(0, 99))
def test_a_large_catalogue_takes_the_other_way_to_the_same_sums(rows, seed):
    rng = np.random.default_rng(seed)
    parts = [
        (np.array(row, np.int32), rng.random(len(row), np.float32) + np.float32(0.1), 0.7**age)
        for age, row in enumerate(rows)
    ]
    few, many = ({int(i): float(s) for i, s in zip(*neighbours._sums(parts, n), strict=True)} for n in (10, 10**9))
    assert few == many


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), top_k=st.integers(1, 4))
def test_many_candidates_are_cut_before_they_are_sorted(seed, top_k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 40, 500).astype(np.float32)  # many tie
    items, found = best(
        Neighbours([0, 500], np.arange(500, dtype=np.int32), scores), [0], decay=1.0, top_k=top_k, keep=everything
    )
    expected = sorted(range(500), key=lambda item: (-scores[item], item))[:top_k]
    assert items == expected
    assert found == scores[expected].tolist()
