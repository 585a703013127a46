import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llm_i2i.catalogue import Histories
from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i import item_knn, recommend
from tests.llm_i2i.i2i.matrices import matrices


def histories(*users: list[int]) -> Histories:
    bounds = np.cumsum([0, *map(len, users)])
    return Histories(bounds, np.array([item for user in users for item in user], dtype=np.int32))


def similarities(dense) -> sparse.csr_array:
    return sparse.csr_array(np.array(dense, dtype=np.float32))


CHAIN = similarities([[0, 0.5, 0.25, 0.25, 0], [0.5, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0] * 5, [0] * 5])


def test_by_hand_sum_history_removed_ties_by_index():
    found = recommend(CHAIN, histories([0], [0, 1], [3], []), top_k=3, targets=np.array([3, 2, 0, 0]))
    assert found.lists.tolist() == [[1, 2, 3], [2, 3, -1], [-1] * 3, [-1] * 3]
    assert found.ranks.tolist() == [3, 1, 0, 0]


def test_last_m_and_decay():
    found = recommend(CHAIN, histories([0, 1]), top_k=5, targets=np.array([3]), last_m=1)
    assert found.lists[0].tolist() == [2, -1, -1, -1, -1]  # 0 is not queried, yet still removed
    assert found.ranks.tolist() == [0]
    strong = similarities([[0, 0, 1, 0, 0], [0, 0, 0, 0.5, 0], [0] * 5, [0] * 5, [0] * 5])
    assert recommend(strong, histories([0, 1]), top_k=1, decay=0.6).lists.tolist() == [[2]]
    assert recommend(strong, histories([0, 1]), top_k=1, decay=0.4).lists.tolist() == [[3]]


def test_target_in_history_or_absent_has_rank_0():
    found = recommend(CHAIN, histories([0, 1], [0]), top_k=2, targets=np.array([1, -1]))
    assert found.ranks.tolist() == [0, 0]


def test_vanishing_weights_do_no_harm():
    found = recommend(CHAIN, histories([1] * 200 + [0] * 200), top_k=4, targets=np.array([3]), decay=1e-5)
    assert found.lists[0].tolist() == [2, 3, -1, -1]


@settings(max_examples=100, deadline=None)
@given(
    user_items=matrices(max_items=12),
    last_m=st.integers(0, 5),
    decay=st.floats(0.1, 1.0),
    seed=st.integers(0, 10_000),
    top_k=st.integers(1, 15),
)
def test_equals_a_plain_loop(user_items, last_m, decay, seed, top_k):
    generator = np.random.default_rng(seed)
    similar, n_items = item_knn(user_items), user_items.shape[1]
    dense = similar.toarray().astype(np.float64)
    users = [list(generator.choice(n_items, generator.integers(0, n_items + 1), replace=False)) for _ in range(8)]
    targets = generator.integers(0, n_items, 8)
    found = recommend(similar, histories(*users), top_k=top_k, targets=targets, last_m=last_m, decay=decay)
    for user, history in enumerate(users):
        score = np.zeros(n_items)
        weight = 1.0
        for item in (history[-last_m:] if last_m else history)[::-1]:
            score += weight * dense[item]
            weight *= decay
        ranking = sorted(
            (j for j in range(n_items) if np.float32(score[j]) > 0 and j not in history),
            key=lambda j: (-np.float32(score[j]), j),
        )
        shown = [item for item in found.lists[user] if item >= 0]
        assert shown == ranking[:top_k]
        expected = ranking.index(targets[user]) + 1 if targets[user] in ranking else 0
        assert found.ranks[user] == expected


def test_bad_input():
    with pytest.raises(ParamsError, match=r"decay: is 0\.0"):
        recommend(CHAIN, histories([0]), top_k=1, decay=0.0)
    with pytest.raises(ParamsError, match="last_m"):
        recommend(CHAIN, histories([0]), top_k=1, last_m=-1)
    with pytest.raises(DataError, match="history item lies outside"):
        recommend(CHAIN, histories([9]), top_k=1)
    with pytest.raises(DataError, match="2 targets for 1 histories"):
        recommend(CHAIN, histories([0]), top_k=1, targets=np.array([0, 1]))
    with pytest.raises(DataError, match="not positive"):
        recommend(-CHAIN, histories([0]), top_k=1)
