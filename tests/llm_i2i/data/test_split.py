import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.hashing import content_sha256, seeded_hash
from llm_i2i.data.split import Split, split_interactions
from llm_i2i.errors import DataError
from llm_i2i.schema import INTERACTIONS
from tests.llm_i2i.data.tables import interactions, split_params

PARTS = ("train", "valid", "test")


def split(table: pd.DataFrame, seed: int = 1, **params: object) -> Split:
    return split_interactions(table, params=split_params(**params), seed=seed)


def rows(part: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    return list(part.itertuples(index=False, name=None))


def test_by_hand() -> None:
    table = interactions(
        ("u2", "c", 30), ("u1", "a", 5), ("u1", "d", 40), ("u1", "b", 10), ("u1", "c", 20),
        ("u2", "a", 10), ("u2", "b", 20), ("u3", "a", 1), ("u3", "b", 2),
    )  # fmt: skip
    parts = split(table)
    assert rows(parts.train) == [
        ("u1", "a", 5, 0), ("u1", "b", 10, 1), ("u2", "a", 10, 0), ("u3", "a", 1, 0), ("u3", "b", 2, 1),
    ]  # fmt: skip
    assert rows(parts.valid) == [("u1", "c", 20, 2), ("u2", "b", 20, 1)]
    assert rows(parts.test) == [("u1", "d", 40, 3), ("u2", "c", 30, 2)]
    for part in PARTS:
        assert getattr(parts, part).dtypes.astype(str).to_dict() == INTERACTIONS
    manifest = parts.manifest
    assert manifest["counts"]["raw"] == {"rows": 9, "users": 3, "items": 4}
    assert (manifest["users_tested"], manifest["users_in_train_only"]) == (2, 1)
    assert manifest["density"] == pytest.approx(9 / 12)
    assert manifest["tables"]["train"]["sha256"] == content_sha256(parts.train)
    json.dumps(manifest)


def test_held_out_is_the_last_training_item_of_users_with_three() -> None:
    table = interactions(*((f"u{n}", item, time) for n in range(3) for time, item in enumerate("abcdefgh"[: n + 4])))
    everyone = split(table, held_out_share=1.0)
    # Training items: u0 a b, u1 a b c, u2 a b c d: u0 would keep no target.
    assert rows(everyone.held_out) == [("u1", "c"), ("u2", "d")]
    pd.testing.assert_frame_equal(everyone.train, split(table).train)
    assert everyone.manifest["tables"]["held_out"]["users"] == 2
    assert set(rows(split(table, held_out_share=0.5).held_out)) < set(rows(everyone.held_out))
    assert split(table).held_out.empty


def test_repeated_items_keep_the_first_and_are_counted() -> None:
    table = interactions(
        ("u", "a", 1), ("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "a", 4), ("u", "a", 5),
    )  # fmt: skip
    parts = split(table)
    assert [rows(getattr(parts, part)) for part in PARTS] == [
        [("u", "a", 1, 0)],
        [("u", "b", 2, 1)],
        [("u", "c", 3, 2)],
    ]
    assert parts.manifest["removed"] == {"exact_duplicates": 1, "repeated_items": 2, "users_not_sampled": 0}


def test_ties_follow_the_seeded_hash() -> None:
    items = list("abcdefgh")
    table = interactions(*((user, item, 7) for user in ("u", "v") for item in items))
    for seed in range(5):
        parts = split(table, seed)
        assert parts.manifest["rows_with_tied_time"] == 16
        for user in ("u", "v"):
            expected = [items[i] for i in np.argsort(seeded_hash(seed, [user] * 8, items))]
            found = [item for part in PARTS for u, item, _, _ in rows(getattr(parts, part)) if u == user]
            assert found == expected
    last = [tuple(split(table, seed).test["item_id"]) for seed in range(20)]
    assert len({items for items, _ in last}) > 3
    assert any(of_u != of_v for of_u, of_v in last)  # users have orders of their own


def test_sample_of_users() -> None:
    table = interactions(*((f"u{i}", item, t) for i in range(30) for t, item in enumerate("abc")))
    sampled = {n: set(split(table, max_users=n).train["user_id"]) for n in (5, 10)}
    assert {n: len(users) for n, users in sampled.items()} == {5: 5, 10: 10}
    assert sampled[5] < sampled[10]
    assert sampled[10] != set(split(table, seed=2, max_users=10).train["user_id"])
    assert split(table, max_users=10).manifest["removed"]["users_not_sampled"] == 20
    assert len(split(table, max_users=99).test) == 30


WEEKS = {"strategy": "temporal", "test_share": 0.3, "valid_share": 0.2}
HISTORIES = interactions(
    ("u", "a", 1), ("v", "a", 2), ("u", "b", 3), ("v", "b", 4), ("w", "a", 5),
    ("u", "c", 6), ("x", "a", 6),
    ("u", "d", 8), ("u", "e", 9), ("x", "b", 8),
)  # fmt: skip


def test_temporal_by_hand() -> None:
    parts = split(HISTORIES, **WEEKS)  # 10 rows: valid from the time of the 6th, test from that of the 8th
    assert rows(parts.train) == [("u", "a", 1, 0), ("u", "b", 3, 1), ("v", "a", 2, 0), ("v", "b", 4, 1),
                                 ("w", "a", 5, 0)]  # fmt: skip
    assert rows(parts.valid) == [("u", "c", 6, 2)]  # x has no history in train
    assert rows(parts.test) == [("u", "d", 8, 3)]  # the first of u's two; v and w are not there any more
    protocol = parts.manifest["protocol"]
    assert (protocol["split"], protocol["valid_from"], protocol["test_from"]) == ("temporal", 6, 8)
    assert (protocol["rows_after_the_target"], protocol["rows_of_users_without_history"]) == (1, 2)
    assert parts.manifest["users_tested"] == 1
    assert parts.manifest["users_in_train_only"] == 2


def test_temporal_needs_as_much_history_as_leave_one_out() -> None:
    assert rows(split(HISTORIES, **WEEKS, min_user_items=4).test) == [("u", "d", 8, 3)]
    with pytest.raises(DataError, match=r"valid is empty .valid from 6, test from 8.*valid_share"):
        split(HISTORIES, **WEEKS, min_user_items=5)


def test_temporal_needs_times() -> None:
    with pytest.raises(DataError, match="temporal on `position`"):
        split_interactions(HISTORIES, params=split_params(**WEEKS), seed=1, order="position")
    with pytest.raises(DataError, match="train is empty"):
        split(HISTORIES.assign(timestamp=3), **WEEKS)
    with pytest.raises(ValueError, match="below 1"):
        split_params(test_share=0.6, valid_share=0.4)


def test_no_user_left() -> None:
    table = interactions(("u", "a", 1), ("u", "b", 2))
    with pytest.raises(DataError, match=r"no user has 3 items \(longest history: 2\).*min_user_items"):
        split(table)
    with pytest.raises(DataError, match=r"longest history: 0"):
        split(interactions())


def test_missing_identifier_names_the_row() -> None:
    table = interactions(("u", "a", 1), ("u", "b", 2))
    table.loc[1, "item_id"] = None
    with pytest.raises(DataError, match=r"1 rows without user_id or item_id \(first: row 2\)"):
        split(table)


ROWS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.integers(0, 3)), min_size=1, max_size=40
)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 99), st.sampled_from([0.1, 0.3, 0.5]), st.integers(3, 4))
def test_temporal_properties(
    drawn: list[tuple[str, str, int]], seed: int, test_share: float, min_user_items: int
) -> None:
    base = [("base", item, time) for time, item in enumerate("abcd", start=-1)]
    try:
        parts = split(
            interactions(*base, *drawn), seed, strategy="temporal", test_share=test_share, valid_share=0.2,
            min_user_items=min_user_items,
        )  # fmt: skip
    except DataError:
        return
    # Nothing that a model may see is later than, or at the time of, anything it is tested on.
    assert parts.train["timestamp"].max() < parts.valid["timestamp"].min()
    assert parts.valid["timestamp"].max() < parts.test["timestamp"].min()
    assert parts.test["user_id"].is_unique
    history = parts.train.groupby("user_id").size()
    assert (history.reindex(parts.test["user_id"]) >= min_user_items - 2).all()
    assert set(parts.valid["user_id"]) <= set(parts.train["user_id"])
    together = pd.concat([parts.train, parts.valid, parts.test])
    assert not together.duplicated(["user_id", "item_id"]).any()
    for _, own in together.sort_values(["user_id", "position"]).groupby("user_id"):
        assert own["position"].tolist() == list(range(len(own)))


@settings(max_examples=50, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 99))
def test_properties(drawn: list[tuple[str, str, int]], random: object, seed: int) -> None:
    table = interactions(("base", "a", 0), ("base", "b", 1), ("base", "c", 2), *drawn)
    parts = split(table, seed)
    shuffled = table.sample(frac=1.0, random_state=random.randrange(2**32))  # type: ignore[attr-defined]
    again = split(shuffled, seed)
    assert again.manifest == parts.manifest  # row order does not matter, content hashes included
    together = pd.concat([parts.train, parts.valid, parts.test])
    assert set(zip(together["user_id"], together["item_id"], strict=True)) == set(
        zip(table["user_id"], table["item_id"], strict=True)
    )
    assert not together.duplicated(["user_id", "item_id"]).any()
    for _, history in together.sort_values(["user_id", "position"]).groupby("user_id"):
        assert history["position"].tolist() == list(range(len(history)))
        assert history["timestamp"].is_monotonic_increasing
    lengths = together.groupby("user_id").size()
    assert set(parts.test["user_id"]) == set(lengths[lengths >= 3].index) == set(parts.valid["user_id"])
    assert set(parts.train["user_id"]) == set(table["user_id"])
    for part in PARTS:
        frame = getattr(parts, part)
        pd.testing.assert_frame_equal(frame, frame.sort_values(["user_id", "position"], ignore_index=True))


def test_rows_that_go_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    once = [("u", item, time) for time, item in enumerate("abcd")]
    again = [("u", "a", 9), ("u", "b", 9), ("u", "a", 0)]
    split_interactions(interactions(*once, *again), params=split_params(), seed=0)
    told = {record.getMessage(): record.levelname for record in caplog.records}
    assert told["split: without_exact_duplicates drops 1 of 7 rows (14.3 %)"] == "WARNING"
    assert told["split: without_repeated_items drops 2 of 6 rows (33.3 %)"] == "WARNING"


@pytest.mark.parametrize(("times", "level"), [((1, 1, 1), "WARNING"), ((1, 2, 2), "WARNING"), ((1, 1, 2), "")])
def test_test_items_that_a_hash_chose_are_told(
    caplog: pytest.LogCaptureFixture, times: tuple[int, ...], level: str
) -> None:
    table = interactions(*[("u", item, time) for item, time in zip("abc", times, strict=True)])
    split_interactions(table, params=split_params(), seed=0)
    told = [record.levelname for record in caplog.records if "a hash chose 1 of 1" in record.getMessage()]
    assert told == ([level] if level else [])
