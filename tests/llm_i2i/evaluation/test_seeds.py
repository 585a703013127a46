import numpy as np
import pytest

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.evaluation import paired_bootstrap, seed_summary, seeds_difference
from llm_i2i.evaluation.seeds import pooled_difference

N = 2000


def trainings(
    n_seeds: int, *, mean: float = 0.3, spread: float = 0.02, seed: int = 0, n: int = N
) -> list[np.ndarray]:
    """Hits of the same users; each training has a hit rate of its own around the mean."""
    generator = np.random.default_rng(seed)
    taste = np.random.default_rng(99).random(n)
    return [(taste < mean + spread * generator.normal()).astype(float) for _ in range(n_seeds)]


def test_by_hand():
    summary = seed_summary([np.array([1.0, 0.0]), np.array([1.0, 1.0])], resamples=200, seed=1)
    assert summary.mean == 0.75
    assert summary.sd == pytest.approx(np.sqrt(0.125))
    assert (summary.n_seeds, summary.n_users) == (2, 2)
    assert summary.low < 0.75 < summary.high
    assert np.isnan(seed_summary([np.ones(3)], resamples=10, seed=1).sd)


def test_of_one_training_it_is_the_bootstrap_over_users():
    values = trainings(1)[0]
    found = seed_summary([values], resamples=4000, seed=1)
    users = paired_bootstrap(values, np.zeros(N), resamples=4000, seed=2)
    assert (found.low, found.high) == pytest.approx(
        (users.low, users.high), abs=0.05 * (users.high - users.low)
    )


@pytest.mark.parametrize("jitter", [0.0, 1e-9])  # few distinct values, and all distinct: both ways of drawing
def test_without_spread_between_seeds_it_is_the_bootstrap_over_users(jitter):
    noise = jitter * np.random.default_rng(5).random(N)
    one, other = trainings(1, mean=0.3)[0] + noise, trainings(1, mean=0.25, seed=3)[0]
    found = seeds_difference([one] * 3, [other] * 3, resamples=4000, seed=1)
    users = paired_bootstrap(one, other, resamples=4000, seed=2)
    assert found.mean == pytest.approx(users.mean)
    assert (found.low, found.high) == pytest.approx(
        (users.low, users.high), abs=0.08 * (users.high - users.low)
    )


def test_a_change_of_seed_alone_rarely_passes_where_a_user_bootstrap_often_does():
    """Both sides are the same model: 3 trainings each of a model whose seed moves the metric by more than users do."""
    passed = alone = 0
    for run in range(100):
        one = trainings(3, spread=0.03, seed=2 * run)
        other = trainings(3, spread=0.03, seed=2 * run + 1)
        passed += seeds_difference(one, other, resamples=300, seed=run).low > 0
        alone += paired_bootstrap(one[0], other[0], resamples=300, seed=run).low > 0
    assert alone > 25  # 2.5 is what it promises
    assert passed <= 5


def test_a_large_difference_passes():
    found = seeds_difference(
        trainings(3, mean=0.5, spread=0.005), trainings(3, spread=0.005, seed=8), resamples=1000, seed=1
    )
    assert found.low > 0.15


def test_pairs_take_out_what_seeds_share():
    base = trainings(4, spread=0.05)
    better = [np.minimum(values + (np.random.default_rng(1).random(N) < 0.02), 1.0) for values in base]
    apart = seeds_difference(better, base, resamples=2000, seed=1)
    paired = seeds_difference(better, base, resamples=2000, seed=1, paired_seeds=True)
    assert paired.mean == pytest.approx(apart.mean)
    assert paired.low > 0 > apart.low


def test_seed_order_and_repeatability():
    one, other = trainings(3), trainings(2, seed=4)
    first = seeds_difference(one, other, resamples=500, seed=1)
    assert first == seeds_difference(one, other, resamples=500, seed=1)
    assert first != seeds_difference(one, other, resamples=500, seed=2)
    assert (
        seeds_difference(one, [other[0]], resamples=500, seed=1).high > first.low
    )  # a model without randomness


def test_bad_input():
    one = [np.ones(3), np.ones(3)]
    with pytest.raises(DataError, match=r"one training each.*paired_bootstrap"):
        seeds_difference(one[:1], one[:1], resamples=10, seed=1)
    with pytest.raises(DataError, match="3 and 2 users"):
        seeds_difference(one, [np.ones(2)], resamples=10, seed=1)
    with pytest.raises(DataError, match="2 and 1 trainings"):
        seeds_difference(one, one[:1], resamples=10, seed=1, paired_seeds=True)
    with pytest.raises(DataError, match="shapes"):
        seed_summary([np.ones(3), np.ones(2)], resamples=10, seed=1)
    with pytest.raises(DataError, match="1 values of candidate are not finite"):
        seeds_difference([np.array([1.0, np.nan]), np.ones(2)], [np.ones(2)], resamples=10, seed=1)
    with pytest.raises(ParamsError, match="resamples"):
        seed_summary(one, resamples=0, seed=1)


def test_pooled_difference_of_one_seed_is_the_paired_one() -> None:
    difference = np.random.default_rng(0).normal(0.1, 1.0, 400)
    pooled = pooled_difference([difference], resamples=4000, seed=1)
    paired = paired_bootstrap(difference, np.zeros(400), resamples=4000, seed=1)
    assert pooled == paired


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
