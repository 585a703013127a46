import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.evaluation.bootstrap import pooled_difference
from llm_i2i.evaluation.paired import Measured, PairedDifference, in_slice, with_long_tail
from llm_i2i.schema import PER_USER, SLICES

GIVEN = {"resamples": 200, "seed": 0}


def per_user(ranks: list[int], *, buckets: str = "th", users: str = "abcdefgh") -> pd.DataFrame:
    """One row per rank; buckets: h(ead) or t(ail), repeated."""
    names = [{"h": "head", "t": "tail"}[buckets[n % len(buckets)]] for n in range(len(ranks))]
    table = {"user_id": list(users[: len(ranks)]), "item_id": "i", "bucket": names, "rank": ranks}
    return pd.DataFrame(table).astype(PER_USER)


def paired(*pairs: tuple[pd.DataFrame, pd.DataFrame]) -> PairedDifference:
    one, other = (Measured({}, {n: pair[side] for n, pair in enumerate(pairs)}) for side in (0, 1))
    return PairedDifference(one, other)


def test_by_hand():
    found = paired((per_user([1, 11]), per_user([11, 11])), (per_user([1, 1]), per_user([1, 11])))
    assert found.interval("recall@10", **GIVEN).mean == 0.5
    assert found.by_seed("recall@10") == [0.5, 0.5]
    assert found.by_seed("recall@10", "tail") == [1.0, 0.0]
    assert found.interval("recall@10", "tail", **GIVEN).mean == 0.5
    assert (found.n_users(), found.n_users("tail"), found.n_users("cold")) == (2, 1, 0)
    assert found.by_seed("recall@10", "cold") == [0.0, 0.0]
    with pytest.raises(DataError, match="slice 'cold'"):
        found.interval("recall@10", "cold", **GIVEN)


def test_one_seed_is_the_bootstrap_over_users_whatever_the_order_of_rows():
    generator = np.random.default_rng(1)
    one, other = (per_user(generator.integers(1, 15, 8).tolist()) for _ in range(2))
    found = paired((one.sample(frac=1.0, random_state=3), other))
    hits = [(table["rank"] <= 10).to_numpy(float) for table in (one, other)]
    assert found.interval("recall@10", **GIVEN) == pooled_difference([np.subtract(*hits)], **GIVEN)
    tail = (one["bucket"] == "tail").to_numpy()
    expected = pooled_difference([hits[0][tail] - hits[1][tail]], **GIVEN)
    assert found.interval("recall@10", "tail", **GIVEN) == expected


def test_without_a_baseline_it_is_the_value_itself():
    alone = PairedDifference(Measured.once(per_user([1, 11, 2, 0])), None)
    assert alone.interval("recall@10", **GIVEN).mean == 0.5
    assert alone.by_seed("recall@10", "tail") == [1.0]


def test_a_user_counts_in_a_slice_if_it_is_there_under_every_seed():
    moved = per_user([1, 1], buckets="ht")  # ties in time gave the users other targets
    found = paired((per_user([1, 1]), per_user([11, 1])), (moved, per_user([1, 11], buckets="ht")))
    assert found.n_users() == 2
    assert found.n_users("tail") == 0
    expected = pooled_difference([np.array([1.0, 0.0]), np.array([0.0, 1.0])], **GIVEN)
    assert found.interval("recall@10", **GIVEN) == expected


def test_seeds_that_test_other_users_make_one_larger_sample():
    found = paired(
        (per_user([1, 11]), per_user([11, 11])), (per_user([1, 1], users="yz"), per_user([11, 11], users="yz"))
    )
    expected = pooled_difference([np.array([1.0, 0.0, 1.0, 1.0])], **GIVEN)
    assert found.interval("recall@10", **GIVEN) == expected
    assert found.by_seed("recall@10") == [0.5, 1.0]


def test_other_users_targets_or_seeds_do_not_pair():
    one = per_user([1, 2])
    for other in (one[:1], one.assign(item_id="j"), one.assign(bucket="mid"), one.assign(user_id=["a", "z"])):
        with pytest.raises(ArtifactError, match="other users or targets"):
            paired((one, other))
    with pytest.raises(ArtifactError, match=r"seeds \[0\] against \[1\]"):
        PairedDifference(Measured.once(one), Measured({}, {1: one}))
    with pytest.raises(ArtifactError, match="seeds"):
        PairedDifference(Measured({}, {}), None)


def test_protocols_are_told_by_both_sides_or_by_neither():
    one = per_user([1, 2])
    with pytest.raises(ArtifactError, match="no protocol"):
        PairedDifference(Measured.once(one, {"test_sha256": "t"}), Measured.once(one))


def test_slices():
    table = per_user([1, 2, 3, 4])
    assert {name: int(in_slice(table, name).sum()) for name in SLICES if name != "long_tail"} == {
        "overall": 4, "head": 2, "mid": 0, "tail": 2, "cold": 0
    }  # fmt: skip
    with pytest.raises(ArtifactError, match="is_long_tail"):
        in_slice(table, "long_tail")
    items = pd.DataFrame({"item_id": ["i", "j"], "is_long_tail": [True, False]})
    assert in_slice(with_long_tail(table, items), "long_tail").all()
