import numpy as np
import pytest

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.evaluation import ndcg_at_k, paired_bootstrap

RANKS = np.random.default_rng(0).integers(0, 100, (2, 19_412))


def test_interval_matches_the_normal_approximation_in_both_ways_of_drawing():
    generator = np.random.default_rng(1)
    few = ndcg_at_k(RANKS[0], 10)  # 11 distinct values: multinomial
    many = generator.normal(0.1, 1.0, 3000)  # all distinct: user by user
    for candidate in (few, many):
        found = paired_bootstrap(candidate, np.zeros(candidate.size), resamples=4000, seed=3)
        half = 1.96 * candidate.std() / np.sqrt(candidate.size)
        assert found.mean == pytest.approx(candidate.mean())
        assert found.low == pytest.approx(candidate.mean() - half, abs=0.1 * half)
        assert found.high == pytest.approx(candidate.mean() + half, abs=0.1 * half)


def test_both_ways_of_drawing_agree():
    few = ndcg_at_k(RANKS[0, :4000], 10)
    jitter = few + 1e-9 * np.random.default_rng(0).random(few.size)  # the same, but every value distinct
    one = paired_bootstrap(few, np.zeros(4000), resamples=10_000, seed=1)
    other = paired_bootstrap(jitter, np.zeros(4000), resamples=10_000, seed=1)
    assert one.low == pytest.approx(other.low, rel=0.02)
    assert one.high == pytest.approx(other.high, rel=0.02)


def test_pairing_seed_and_sign():
    a, b = ndcg_at_k(RANKS[0], 10), ndcg_at_k(RANKS[1], 10)
    one = paired_bootstrap(a, b, resamples=500, seed=5)
    assert one == paired_bootstrap(a, b, resamples=500, seed=5)
    assert one != paired_bootstrap(a, b, resamples=500, seed=6)
    assert paired_bootstrap(a, a, resamples=500, seed=5) == (0.0, 0.0, 0.0)
    assert paired_bootstrap(a + 0.5, a, resamples=500, seed=5).low == pytest.approx(0.5)


def test_bad_input():
    with pytest.raises(DataError, match="shapes"):
        paired_bootstrap(np.ones(3), np.ones(2), resamples=10, seed=1)
    with pytest.raises(DataError, match="shapes"):
        paired_bootstrap(np.ones(0), np.ones(0), resamples=10, seed=1)
    with pytest.raises(DataError, match="1 differences are not finite"):
        paired_bootstrap(np.array([1.0, np.nan]), np.ones(2), resamples=10, seed=1)
    with pytest.raises(ParamsError, match="resamples"):
        paired_bootstrap(np.ones(2), np.ones(2), resamples=0, seed=1)
