import numpy as np
import pytest

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.evaluation import ndcg_at_k
from llm_i2i.evaluation.bootstrap import pooled_difference

N = 2000
RANKS = np.random.default_rng(0).integers(0, 100, (2, 19_412))


def trainings(n_seeds: int, *, mean: float = 0.3, spread: float = 0.02, seed: int = 0) -> list[np.ndarray]:
    """Hits of the same users; each training has a hit rate of its own around the mean."""
    generator = np.random.default_rng(seed)
    taste = np.random.default_rng(99).random(N)
    return [(taste < mean + spread * generator.normal()).astype(float) for _ in range(n_seeds)]


def difference(one: list[np.ndarray], other: list[np.ndarray], **options) -> tuple[float, float, float]:
    return pooled_difference([a - b for a, b in zip(one, other, strict=True)], **options)


def test_interval_matches_the_normal_approximation_in_both_ways_of_drawing():
    generator = np.random.default_rng(1)
    few = ndcg_at_k(RANKS[0], 10)  # 11 distinct values: multinomial
    many = generator.normal(0.1, 1.0, 3000)  # all distinct: user by user
    for candidate in (few, many):
        found = pooled_difference([candidate], resamples=4000, seed=3)
        half = 1.96 * candidate.std() / np.sqrt(candidate.size)
        assert found.mean == pytest.approx(candidate.mean())
        assert found.low == pytest.approx(candidate.mean() - half, abs=0.1 * half)
        assert found.high == pytest.approx(candidate.mean() + half, abs=0.1 * half)


def test_both_ways_of_drawing_agree():
    few = ndcg_at_k(RANKS[0, :4000], 10)
    jitter = few + 1e-9 * np.random.default_rng(0).random(few.size)  # the same, but every value distinct
    one = pooled_difference([few], resamples=10_000, seed=1)
    other = pooled_difference([jitter], resamples=10_000, seed=1)
    assert one.low == pytest.approx(other.low, rel=0.02)
    assert one.high == pytest.approx(other.high, rel=0.02)


def test_pairing_seed_and_sign():
    a, b = ndcg_at_k(RANKS[0], 10), ndcg_at_k(RANKS[1], 10)
    one = pooled_difference([a - b], resamples=500, seed=5)
    assert one == pooled_difference([a - b], resamples=500, seed=5)
    assert one != pooled_difference([a - b], resamples=500, seed=6)
    assert pooled_difference([a - a], resamples=500, seed=5) == (0.0, 0.0, 0.0)
    assert pooled_difference([a + 0.5 - a], resamples=500, seed=5).low == pytest.approx(0.5)


def test_bad_input():
    with pytest.raises(DataError, match="shapes"):
        pooled_difference([np.ones(0)], resamples=10, seed=1)
    with pytest.raises(DataError, match="1 differences are not finite"):
        pooled_difference([np.array([1.0, np.nan])], resamples=10, seed=1)
    with pytest.raises(ParamsError, match="resamples"):
        pooled_difference([np.ones(2)], resamples=0, seed=1)


@pytest.mark.parametrize("jitter", [0.0, 1e-9])  # few distinct values, and all distinct: both ways of drawing
def test_without_spread_between_seeds_it_is_the_bootstrap_over_users(jitter):
    noise = jitter * np.random.default_rng(5).random(N)
    one, other = trainings(1, mean=0.3)[0] + noise, trainings(1, mean=0.25, seed=3)[0]
    found = difference([one] * 3, [other] * 3, resamples=4000, seed=1)
    users = pooled_difference([one - other], resamples=4000, seed=2)
    assert found.mean == pytest.approx(users.mean)
    assert (found.low, found.high) == pytest.approx((users.low, users.high), abs=0.08 * (users.high - users.low))


def test_a_change_of_seed_alone_rarely_passes_where_a_user_bootstrap_often_does():
    """Both sides are the same model: 3 trainings each of a model whose seed moves the metric by more than users do."""
    passed = alone = 0
    for run in range(100):
        one = trainings(3, spread=0.03, seed=2 * run)
        other = trainings(3, spread=0.03, seed=2 * run + 1)
        passed += difference(one, other, resamples=300, seed=run).low > 0
        alone += pooled_difference([one[0] - other[0]], resamples=300, seed=run).low > 0
    assert alone > 25  # 2.5 is what it promises
    assert passed <= 5


def test_a_large_difference_passes_and_repeats():
    one, other = trainings(3, mean=0.5, spread=0.005), trainings(3, spread=0.005, seed=8)
    found = difference(one, other, resamples=1000, seed=1)
    assert found.low > 0.15
    assert found == difference(one, other, resamples=1000, seed=1)
    assert found != difference(one, other, resamples=1000, seed=2)


def test_pairs_take_out_what_seeds_share():
    base = trainings(4, spread=0.05)
    better = [np.minimum(values + (np.random.default_rng(1).random(N) < 0.02), 1.0) for values in base]
    assert difference(better, base, resamples=2000, seed=1).low > 0
    assert difference(better, base[::-1], resamples=2000, seed=1).low < 0


def test_pooled_difference_holds_what_single_seeds_say() -> None:
    """Seeds at +1 and -1 without any variance between users: the interval reaches both."""
    pooled = pooled_difference([np.full(50, 1.0), np.full(50, -1.0)], resamples=1000, seed=1)
    assert pooled.mean == 0.0
    assert (pooled.low, pooled.high) < (-0.99, 1.01)
    assert pooled.high > 0.99


@pytest.mark.parametrize("vectors", [[], [np.zeros(0)], [np.zeros(3), np.zeros(4)], [np.full(3, np.nan)]])
def test_pooled_difference_refuses_what_cannot_be_paired(vectors) -> None:
    with pytest.raises(DataError):
        pooled_difference(vectors, resamples=10, seed=1)
