from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.augmentation.fusion import fuse
from llm_i2i.data.hashing import seeded_hash
from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.schema import FUSED
from tests.llm_i2i.data.tables import catalogue, fuse_params, scored_rows, train_rows

ITEMS = catalogue(*"abcdefgh")
TRAIN = train_rows(("u", "a"), ("u", "b"), ("v", "a"), ("w", "c"))
VALID = train_rows(("u", "d"))
SCORED = scored_rows(
    ("u", "a", "real", 0.9, 0), ("u", "b", "real", 0.01, 0), ("v", "a", "real", 0.05, 0),
    ("u", "c", "synthetic", 0.9, 2), ("u", "d", "synthetic", 0.6, 1), ("u", "e", "synthetic", 0.9, 3),
    ("u", "f", "synthetic", 0.95, 4), ("v", "c", "synthetic", 0.4, 1), ("v", "d", "synthetic", 0.5, 2),
)  # fmt: skip


def run(
    arm: str = "llm_i2i",
    train: pd.DataFrame = TRAIN,
    valid: pd.DataFrame = VALID,
    scored: pd.DataFrame = SCORED,
    items: pd.DataFrame = ITEMS,
    control: pd.DataFrame | None = None,
    **params: object,
) -> tuple[pd.DataFrame, dict[str, object]]:
    given = {"train": train, "valid": valid, "scored": scored, "items": items, "control": control}
    return fuse(arm=arm, params=fuse_params(**params), **given)


def pairs(fused: pd.DataFrame, source: str) -> list[str]:
    rows = fused[fused["source"] == source]
    return [f"{user}{item}" for user, item in zip(rows["user_id"], rows["item_id"], strict=True)]


def test_real() -> None:
    fused, counts = run("real")
    assert pairs(fused, "real") == ["ua", "ub", "va", "wc"]
    assert pairs(fused, "synthetic") == []
    assert fused.dtypes.astype(str).to_dict() == FUSED
    assert set(fused["weight"]) == {1.0}
    assert (counts["rows"], counts["real_kept"], counts["synthetic_in"]) == (4, 4, 0)


def test_llm_i2i_by_threshold() -> None:
    fused, counts = run()
    assert pairs(fused, "real") == ["ua", "va", "wc"]  # ub scored below .05; va is exactly at it
    assert pairs(fused, "synthetic") == ["uc", "ue", "uf", "vd"]  # capped at 3: .95, .9, .9
    assert fused[["user_id", "item_id"]].apply(tuple, axis=1).is_monotonic_increasing
    assert counts == {
        "arm": "llm_i2i",
        "index": "train",
        "rows": 7,
        "real_in": 4,
        "real_kept": 3,
        "synthetic_in": 6,
        "synthetic_kept": 4,
        "share_kept_synthetic": pytest.approx(4 / 6),
        "by_bucket": {
            "head": {"real": 0, "synthetic": 0},
            "mid": {"real": 3, "synthetic": 4},
            "tail": {"real": 0, "synthetic": 0},
            "cold": {"real": 0, "synthetic": 0},
        },
    }


def test_the_papers_rule_drops_of_the_generators_first_and_orders_nothing_by_p_yes() -> None:
    # u: d, c, e, f by rank with .6, .9, .9, .95; v: c, d with .4, .5.
    fused, _ = run(confidence="rank", max_synthetic_per_user=2)
    assert pairs(fused, "synthetic") == ["uc", "ud", "vd"]
    fused, _ = run(confidence="rank", max_synthetic_per_user=1)
    assert pairs(fused, "synthetic") == ["ud"], "the place of a dropped pair is not given to the next one"


def test_cap_takes_the_most_confident_with_ties_by_hash() -> None:
    c, e = seeded_hash(0, ["u", "u"], ["c", "e"])  # tie at .9
    first = "uc" if c < e else "ue"
    fused, _ = run(max_synthetic_per_user=2)
    assert pairs(fused, "synthetic") == [first, "uf", "vd"]


def test_thresholds_compare_as_stored() -> None:
    """p_yes is float32: 0.9 stored is below 0.9 in double precision."""
    assert float(np.float32(0.9)) != 0.9
    fused, _ = run(threshold=0.9)
    assert pairs(fused, "synthetic") == ["uc", "ue", "uf"]


def test_volume() -> None:
    fused, _ = run(mode="volume", pairs_per_user=1.5)
    assert pairs(fused, "synthetic") == ["uc", "ue", "uf"]
    fused, _ = run(mode="volume", pairs_per_user=9.0, max_synthetic_per_user=9)
    assert len(pairs(fused, "synthetic")) == 6


def test_no_generator_and_no_discriminator() -> None:
    fused, counts = run("no_generator")
    assert pairs(fused, "real") == ["ua", "va", "wc"]
    assert counts["synthetic_kept"] == 0
    fused, _ = run("no_discriminator", max_synthetic_per_user=2)
    assert pairs(fused, "real") == ["ua", "ub", "va", "wc"]
    assert pairs(fused, "synthetic") == ["uc", "ud", "vc", "vd"]  # by the generator's rank


def test_synthetic_only_is_the_synthetic_part_of_llm_i2i() -> None:
    fused, counts = run("synthetic_only")
    both, _ = run("llm_i2i")
    assert pairs(fused, "real") == []
    assert pairs(fused, "synthetic") == pairs(both, "synthetic") != []
    assert (counts["real_in"], counts["real_kept"], counts["synthetic_kept"]) == (4, 0, 4)


CONTROL = pd.DataFrame(
    [("u", "h", 1), ("u", "d", 2), ("u", "g", 3), ("u", "c", 4), ("v", "h", 2), ("v", "g", 1)],
    columns=["user_id", "item_id", "rank"],
)


def test_control_keeps_as_many_a_user_as_the_arm_it_is_compared_with() -> None:
    fused, counts = run("item_knn", control=CONTROL, max_synthetic_per_user=2)
    assert pairs(fused, "real") == ["ua", "ub", "va", "wc"]
    assert pairs(fused, "synthetic") == ["ud", "uh", "vg"]  # llm_i2i keeps 2 of u, 1 of v; by the control's rank
    assert (counts["synthetic_in"], counts["synthetic_kept"]) == (6, 3)
    fused, _ = run("item_knn", control=CONTROL, threshold=0.45, max_synthetic_per_user=3)
    assert pairs(fused, "synthetic") == ["ud", "ug", "uh", "vg"]


def test_control_may_keep_as_many_a_user_as_no_discriminator() -> None:
    def run_control(**params: object) -> tuple[pd.DataFrame, dict[str, object]]:
        return run("item_knn", control=CONTROL, control_volume="no_discriminator", **params)

    fused, counts = run_control(max_synthetic_per_user=3)
    assert pairs(fused, "real") == ["ua", "ub", "va", "wc"]
    assert pairs(fused, "synthetic") == ["ud", "ug", "uh", "vg", "vh"]  # u 3 of 4, v 2 of 2, by rank
    assert (counts["synthetic_in"], counts["synthetic_kept"]) == (6, 5)
    fused, _ = run_control(max_synthetic_per_user=1)
    assert pairs(fused, "synthetic") == ["uh", "vg"]
    fused, _ = run_control(max_synthetic_per_user=2, index="train+valid")
    assert pairs(fused, "synthetic") == ["ug", "uh", "vg", "vh"]  # ud is real now
    with pytest.raises(ArtifactError, match=r"controls/random\.parquet: was not given"):
        run("random")


def test_filtered_control_keeps_its_most_confident_and_as_many_a_user_as_llm_i2i() -> None:
    scored = pd.concat([
        SCORED,
        scored_rows(("u", "h", "item_knn", 0.1, 1), ("u", "d", "item_knn", 0.3, 2), ("u", "g", "item_knn", 0.2, 3),
                    ("u", "c", "item_knn", 0.05, 4), ("v", "h", "item_knn", 0.7, 1), ("v", "g", "item_knn", 0.8, 2)),
    ])  # fmt: skip
    for arm in ("llm_i2i", "no_discriminator", "real"):  # what controls scored concerns no other arm
        pd.testing.assert_frame_equal(run(arm, scored=scored)[0], run(arm)[0])
    fused, _ = run("item_knn_filtered", scored=scored)
    assert pairs(fused, "real") == pairs(run("llm_i2i")[0], "real")
    assert pairs(fused, "synthetic") == ["ud", "ug", "uh", "vg"]  # llm_i2i keeps 3 of u, 1 of v
    with pytest.raises(ArtifactError, match=r"no row of source random.*`score\.sources`"):
        run("random_filtered", scored=scored)


def test_real_filter_can_be_off() -> None:
    assert pairs(run(filter_real=False)[0], "real") == ["ua", "ub", "va", "wc"]


@pytest.mark.parametrize("arm", ["real", "llm_i2i", "no_generator", "no_discriminator", "synthetic_only"])
def test_valid_items_enter_only_where_the_setting_says_so(arm: str) -> None:
    without = run(arm, valid=train_rows())
    other = run(arm, valid=train_rows(("u", "g"), ("v", "h")))
    pd.testing.assert_frame_equal(without[0], other[0])
    assert without[1] == other[1]
    fused, counts = run(arm, index="train+valid")
    assert "ud" in pairs(fused, "real") or arm == "synthetic_only"
    assert "ud" not in pairs(fused, "synthetic")  # proposed by the generator too: not new any more
    assert not fused.duplicated(["user_id", "item_id"]).any()
    assert counts["real_in"] == 5


def test_nothing_survives() -> None:
    with pytest.raises(GenerationError, match=r"none of 6 .* p_yes >= 0.99 \(p_yes: max 0.95.*to 0.94"):
        run(threshold=0.99)
    with pytest.raises(GenerationError, match=r"0 pairs per user.*raise `fuse.custom.pairs_per_user`"):
        run(mode="volume", pairs_per_user=0.0)
    real_only = SCORED[SCORED["source"] == "real"]
    for arm in ("llm_i2i", "no_discriminator"):
        with pytest.raises(GenerationError, match="there is no synthetic row"):
            run(arm, scored=real_only)
    assert len(run("real", scored=real_only)[0]) == 4


def test_advised_threshold_works() -> None:
    scored = scored_rows(("u", "c", "synthetic", 0.8999, 1))
    with pytest.raises(GenerationError, match=r"to 0\.899 or less"):
        run(scored=scored, threshold=0.9)
    assert run(scored=scored, threshold=0.899)[1]["synthetic_kept"] == 1


def test_advised_threshold_works_where_only_the_generators_first_count() -> None:
    with pytest.raises(GenerationError, match=r"lower `fuse.threshold` to 0\.6 or less") as error:
        run(confidence="rank", max_synthetic_per_user=1, threshold=0.9)  # uf has .95, but is not u's first
    assert "none of 2 synthetic rows" in str(error.value)
    fused, _ = run(confidence="rank", max_synthetic_per_user=1, threshold=0.6)
    assert pairs(fused, "synthetic") == ["ud"]


def test_every_real_row_doubted() -> None:
    train = TRAIN.iloc[:1]
    scored = scored_rows(("u", "a", "real", 0.01, 0), ("u", "c", "synthetic", 1.0, 1))
    with pytest.raises(GenerationError, match=r"none of 1 real rows .*real_threshold"):
        run(train=train, scored=scored)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("w", "d", "synthetic", 1.5, 1), "p_yes outside"),
        (("w", "d", "synthetic", float("nan"), 1), "p_yes outside"),
        (("w", "d", "made", 0.5, 1), "unknown source"),
        (("u", "c", "synthetic", 0.5, 1), "occur twice"),
        (("w", "z", "synthetic", 0.5, 1), "item outside the catalogue"),
        (("x", "a", "synthetic", 0.5, 1), "user outside train"),
        (("w", "c", "synthetic", 0.5, 1), "synthetic but equal a real row"),
        (("w", "d", "real", 0.5, 0), "called real but are not in train"),
    ],
)
def test_scored_rows_that_cannot_be(row: tuple[str, str, str, float, int], message: str) -> None:
    scored = pd.concat([SCORED, scored_rows(row)], ignore_index=True)
    with pytest.raises(ArtifactError, match=f"1 rows .*{message}.*first: user {row[0]}, item {row[1]}"):
        run(scored=scored)


def test_missing_rank_column() -> None:
    with pytest.raises(ArtifactError, match=r"columns \['rank'\] are missing"):
        run(scored=SCORED.drop(columns="rank"))


SYNTHETIC = st.dictionaries(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("defgh")),
    st.tuples(st.sampled_from([0.2, 0.5, 0.7, 0.9]), st.integers(1, 5)),
    min_size=1,
)


@settings(max_examples=20, deadline=None)
@given(SYNTHETIC, st.sampled_from(["threshold", "volume"]), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_properties(drawn: dict[tuple[str, str], tuple[float, int]], mode: str, cap: int, shuffle: int) -> None:
    scored = scored_rows(*((u, i, "synthetic", p, rank) for (u, i), (p, rank) in drawn.items()))

    def kept(level: float, table: pd.DataFrame = scored) -> set[str]:
        levels = {"threshold": level, "pairs_per_user": 3.0 * (1.0 - level)}
        try:
            fused, _ = run(scored=table, mode=mode, max_synthetic_per_user=cap, **levels)
        except GenerationError:
            return set()
        found = pairs(fused, "synthetic")
        assert len(found) == len(set(found))
        assert pd.Series([pair[0] for pair in found]).value_counts().max() <= cap
        return set(found)

    levels = [0.0, 0.3, 0.5, 0.6, 0.8, 1.0]
    by_level = [kept(level) for level in levels]
    for lower, higher in pairwise(by_level):
        assert higher <= lower  # a higher threshold never keeps more, nor other rows
    shuffled = scored.sample(frac=1.0, random_state=shuffle)
    assert [kept(level, shuffled) for level in levels] == by_level


def test_tail_quota_keeps_the_most_confident_users_of_each_tail_item() -> None:
    items = ITEMS.assign(bucket=["mid", "mid", "tail", "tail", "mid", "mid", "mid", "mid"])
    fused, _ = run(items=items, threshold=0.94, tail_quota=1)
    assert pairs(fused, "synthetic") == ["uc", "ud", "uf"]  # f by threshold; c: u .9 before v .4; d: u .6, v .5
    fused, _ = run(items=items, threshold=0.99, tail_quota=2)
    assert pairs(fused, "synthetic") == ["uc", "ud", "vc", "vd"]
    fused, _ = run("no_discriminator", items=items, tail_quota=2, max_synthetic_per_user=1)
    assert pairs(fused, "synthetic") == ["ud", "vc"]


def test_quotas_add_so_many_of_what_volume_keeps_at_most_the_most_confident_first(monkeypatch) -> None:
    kept = {"mode": "volume", "item_quota": 9}
    monkeypatch.setattr("llm_i2i.augmentation.selection.QUOTA_SHARE", 1.5)
    fused, _ = run(**kept, pairs_per_user=0.5)  # uf of 6 pairs of 2 users, and then one more
    found = pairs(fused, "synthetic")
    assert len(found) == 2
    assert "uf" in found
    assert set(found) < {"uc", "ue", "uf"}
    fused, _ = run(**kept, pairs_per_user=1.0)  # two, and then three
    assert pairs(fused, "synthetic") == ["uc", "ud", "ue", "uf", "vd"]


def test_item_quota_keeps_the_most_confident_users_of_each_item() -> None:
    fused, _ = run(threshold=0.94, item_quota=1)
    assert pairs(fused, "synthetic") == ["uc", "ud", "ue", "uf"]  # c: u .9 before v .4; d: u .6, v .5
    items = ITEMS.assign(bucket=["mid", "mid", "mid", "tail", "mid", "mid", "mid", "mid"])
    fused, _ = run(items=items, threshold=0.94, item_quota=1, tail_quota=2)
    assert pairs(fused, "synthetic") == ["uc", "ud", "ue", "uf", "vd"]


def test_connected_only_drops_items_nobody_took_with_one_of_the_users() -> None:
    # u took a, b; v took a; w took b, c; x took d alone: c is connected to u (by b), d and e to nobody, c not to v.
    train = train_rows(("u", "a"), ("u", "b"), ("v", "a"), ("w", "b"), ("w", "c"), ("x", "d"))
    scored = SCORED[SCORED["source"] == "synthetic"]
    fused, counts = run(train=train, scored=scored, connected_only=True, threshold=0.0)
    assert pairs(fused, "synthetic") == ["uc"]
    assert counts["synthetic_in"] == 6
    # The volume is taken of what is left; quotas add nothing that is not connected.
    fused, _ = run(train=train, scored=scored, connected_only=True, mode="volume", pairs_per_user=9.0, item_quota=9)
    assert pairs(fused, "synthetic") == ["uc"]
    with pytest.raises(GenerationError, match="connected_only: false"):
        run(connected_only=True)  # TRAIN: c was taken by w alone
    fused, _ = run("no_discriminator", train=train, scored=scored, connected_only=True)
    assert len(pairs(fused, "synthetic")) == 5  # the generator's own first rows


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, unique=True))
def test_connected_only_equals_a_search_through_all_users(taken: list[tuple[int, int]]) -> None:
    by_user: dict[str, set[str]] = {}
    for user, item in taken:
        by_user.setdefault("uvwxyz"[user], set()).add("abcdefgh"[item])
    train = train_rows(*((user, item) for user in by_user for item in sorted(by_user[user])))
    offered = [(user, item) for user, own in by_user.items() for item in sorted(set("abcdefgh") - own)]
    expected = sorted(
        user + item
        for user, item in offered
        if any(item in other and other & by_user[user] for other in by_user.values())
    )
    if not expected:
        return
    scored = scored_rows(*((user, item, "synthetic", 0.9, 1) for user, item in offered))
    fused, _ = run(train=train, valid=train.iloc[:0], scored=scored, connected_only=True, max_synthetic_per_user=9)
    assert pairs(fused, "synthetic") == expected


def test_confidence_may_be_the_generators() -> None:
    logprob = [np.nan] * 3 + [-1.0, -2.0, -3.0, -4.0, -1.5, -5.0]
    scored = SCORED.assign(logprob=np.float32(logprob))
    fused, _ = run(scored=scored, confidence="logprob", mode="volume", pairs_per_user=1.5)
    assert pairs(fused, "synthetic") == ["uc", "ud", "vc"]
    # Without the discriminator: the same rule by the generator's confidence, whatever p_yes says.
    same, _ = run("no_discriminator", scored=scored, confidence="p_yes", mode="volume", pairs_per_user=1.5)
    assert pairs(same, "synthetic") == ["uc", "ud", "vc"]
    with pytest.raises(ArtifactError, match="6 synthetic rows have no logprob"):
        run(confidence="logprob")
