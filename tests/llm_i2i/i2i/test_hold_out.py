import numpy as np
import pytest

from llm_i2i.errors import ParamsError
from llm_i2i.i2i.hold_out import HeldOut, Patience, hold_out
from llm_i2i.i2i.user_items import check_user_items
from tests.llm_i2i.i2i.matrices import matrix

ROWS = [[0, 1, 2], [3], [1, 4], [0, 2, 3, 4], []]


def test_one_item_of_each_sampled_user_moves_out_of_the_rest():
    user_items = check_user_items(matrix(ROWS))
    held = hold_out(user_items, share=1.0 - 1e-9, seed=3)
    assert held.users.tolist() == [0, 2, 3]  # those with two items or more
    back = held.rest.toarray()
    assert (back[held.users, held.items] == 0).all()
    back[held.users, held.items] = 1
    assert np.array_equal(back, user_items.toarray())
    again, other = (hold_out(user_items, share=1.0 - 1e-9, seed=seed) for seed in (3, 4))
    assert again.items.tolist() == held.items.tolist() != other.items.tolist()


def test_no_slice_for_share_0_or_too_few_users_and_bad_shares_are_errors():
    user_items = check_user_items(matrix(ROWS))
    assert hold_out(user_items, share=0.0, seed=0) is None
    assert hold_out(user_items, share=0.1, seed=0) is None
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ParamsError, match="validation_share"):
            hold_out(user_items, share=share, seed=0)


def test_ndcg_by_hand_without_the_users_other_items():
    held = HeldOut(check_user_items(matrix([[0], [1, 2]], n_items=4)), np.array([0, 1]), np.array([2, 3]))
    item_vectors = np.float32([[9], [3], [2], [2]])
    # User 0: item 0 is taken, items 1, 2, 3 score 3, 2, 2: the target ties for ranks 2 and 3.
    # User 1: items 1 and 2 are taken, items 0 and 3 score -9 and -2: rank 1.
    expected = (1 / np.log2(1 + 2.5) + 1.0) / 2
    assert held.ndcg(np.float32([[1], [-1]]), item_vectors) == pytest.approx(expected)


def test_patience_counts_checks_without_a_new_best():
    stop = Patience(2)
    assert [stop.improved(value, epoch) for epoch, value in enumerate((0.1, 0.3, 0.3), 1)] == [True, True, False]
    assert not stop.over
    stop.improved(0.2, 4)
    assert stop.over
    assert (stop.best, stop.best_epoch) == (0.3, 2)
