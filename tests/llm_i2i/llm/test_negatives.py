import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.llm.negatives import negative_sampler, random_negatives, weighted_negatives

KINDS = ("random", "popularity")


def test_random_negatives_are_distinct_and_not_the_users_own():
    rng = np.random.default_rng(0)
    own = np.array([1, 3])
    for _ in range(50):
        negatives = random_negatives(own, 8, 4, rng)
        assert len(set(negatives)) == 4
        assert not set(negatives) & set(own)
    assert sorted(random_negatives(own, 4, 9, rng)) == [0, 2]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True), min_size=1, max_size=6),
    size=st.integers(0, 14),
    seed=st.integers(0, 99),
)
def test_every_kind_gives_as_many_distinct_items_outside_the_history_as_there_are(kind, params, histories, size, seed):
    sequences = {f"u{k}": np.array(items) for k, items in enumerate(histories)}
    draw = negative_sampler(kind, sequences, 12, params.train_discriminator)
    for own in sequences.values():
        negatives = draw(own, size, np.random.default_rng(seed))
        assert len(negatives) == len(set(negatives)) == min(size, 12 - len(own))
        assert not set(negatives) & set(own)
        assert np.array_equal(negatives, draw(own, size, np.random.default_rng(seed)))


def test_popularity_draws_in_proportion_to_the_weight():
    rng = np.random.default_rng(0)
    weights = np.array([6.0, 3.0, 1.0, 0.0, 5.0])
    drawn = np.concatenate([weighted_negatives(np.array([4]), weights, 1, rng) for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 4000, [0.6, 0.3, 0.1, 0, 0], atol=0.03)


def test_an_exponent_of_0_is_random(params):
    sequences = {"a": np.array([0, 1]), "b": np.array([1, 2]), "c": np.array([1, 3])}
    flat = params.train_discriminator.model_copy(update={"popularity_exponent": 0.0})
    draw = negative_sampler("popularity", sequences, 5, flat)
    rng = np.random.default_rng(1)
    drawn = np.concatenate([draw(np.array([0]), 1, rng) for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 4000, [0, 0.25, 0.25, 0.25, 0.25], atol=0.03)
