import numpy as np
import pandas as pd
import pytest

from llm_i2i.augmentation.judge import FEATURES, Known, features, judge
from llm_i2i.catalogue import without_rows
from llm_i2i.errors import DataError
from llm_i2i.params import JudgeParams
from llm_i2i.schema import HELD_OUT, JUDGED, SCORED
from tests.llm_i2i.data.tables import catalogue, train_rows

HEAD, YES_NO = JudgeParams(by="head"), JudgeParams(by="yes_no")
ITEMS = catalogue(*"abcdef")
# Texts on a circle: a and b alike, c at a right angle, d opposite to a.
TEXT = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)


def proposals(*rows: tuple[str, str, int, float, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank", "logprob", "held_out"])


def test_features_by_hand() -> None:
    train = train_rows(("u", "a"), ("u", "c"), ("v", "a"))
    rows = pd.DataFrame({"user_id": ["v", "u"], "item_id": ["d", "b"], "p_yes": [0.5, 0.8], "logprob": [-3.0, -1.0]})
    found = features(rows, Known(train, ITEMS, TEXT))
    assert FEATURES == ("margin", "logprob", "popularity", "history_length", "nearest", "last", "together")
    expected = [
        [0.0, -3.0, 0.0, np.log(2), -1.0, -1.0, 0.0],  # d after a: nobody took d
        [np.log(4), -1.0, 0.0, np.log(3), 0.8, 0.6, 0.0],  # b after a, c: .8 to a, .6 to c, the last
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_others_took_together_by_hand() -> None:
    train = train_rows(("u", "a"), ("u", "c"), ("v", "a"), ("v", "b"), ("w", "c"), ("w", "b"), ("w", "d"))
    rows = pd.DataFrame({"user_id": ["u", "w", "u"], "item_id": ["b", "a", "e"], "p_yes": 0.5, "logprob": -1.0})
    found = features(rows, Known(train, ITEMS, TEXT))[:, FEATURES.index("together")]
    # a, b and c have two users each, d one. v took a and b of two items, w took c and b of three; a came before c.
    of_u = 0.8 * 2**-0.5 / 2 + 3**-0.5 / 2
    # of w's c, b, d: u took a and c of two items, v took a and b of two.
    of_w = 0.8**2 * 2**-0.5 / 2 + 0.8 * 2**-0.5 / 2
    np.testing.assert_allclose(found, np.log1p(1000 * np.array([of_u, of_w, 0.0])), rtol=1e-12)


def test_together_does_not_depend_on_how_many_users_are_looked_up_at_a_time(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    train = train_rows(*{(f"u{u}", "abcdef"[i]): None for u, i in rng.integers(0, 6, (40, 2))})
    rows = train[["user_id", "item_id"]].iloc[::3].assign(p_yes=0.5, logprob=-1.0).reset_index(drop=True)
    whole = features(rows, Known(train, ITEMS, TEXT))
    monkeypatch.setattr("llm_i2i.augmentation.judge.USERS_AT_A_TIME", 2)
    np.testing.assert_array_equal(features(rows, Known(train, ITEMS, TEXT)), whole)


@pytest.fixture(scope="module")
def world() -> dict[str, object]:
    """300 users of one item and a held-out one; of two proposals the one whose text is nearer comes true."""
    rng = np.random.default_rng(0)
    n_items = 40
    items = catalogue(*(f"i{n:02d}" for n in range(n_items)))
    text = rng.normal(size=(n_items, 8))
    text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
    rows, held, proposed, scored = [], [], [], []
    for user in range(300):
        first, x, y, z = (int(i) for i in rng.choice(n_items, 4, replace=False))
        near, far = sorted((x, y), key=lambda i: -(text[i] @ text[first]))
        name = f"u{user:03d}"
        rows += [(name, f"i{first:02d}"), (name, f"i{near:02d}")]
        held.append((name, f"i{near:02d}"))
        for rank, item in enumerate((near, far), start=1):
            proposed.append((name, f"i{item:02d}", rank, float(rng.normal()), True))
            scored.append((name, f"i{item:02d}", "held_out", 0.5))
        for rank, item in enumerate({far, z} - {first, near}, start=1):
            proposed.append((name, f"i{item:02d}", rank, float(rng.normal()), False))
            scored.append((name, f"i{item:02d}", "synthetic", 0.5))
        scored.append((name, f"i{first:02d}", "real", 0.9))
    table = pd.DataFrame(scored, columns=list(SCORED)).astype(SCORED).assign(rank=np.int32(1))
    return {
        "scored": table,
        "proposed": proposals(*proposed),
        "held_out": pd.DataFrame(held, columns=list(HELD_OUT)).astype(HELD_OUT),
        "known": Known(train_rows(*rows), items, text),
    }


def test_it_learns_what_tells_proposals_apart(world) -> None:
    rows, facts = judge(**world, params=HEAD)
    assert {column: str(dtype) for column, dtype in rows.dtypes.items()} == JUDGED
    assert len(rows) == (world["scored"]["source"] != "held_out").sum()
    assert (facts["users"], facts["proposals"], facts["taken"]) == (300, 600, 300)
    within = facts["auc_within_user"]
    assert within["judge"]["overall"]["auc"] > 0.9
    assert within["text"]["overall"]["auc"] == 1.0
    assert within["discriminator"]["overall"]["auc"] == 0.5
    low, high = (within["generator"]["overall"][key] for key in ("auc_low", "auc_high"))
    assert low < 0.5 < high, "its confidence is noise here"
    assert max(facts["coefficients"], key=facts["coefficients"].get) == "nearest"
    real = rows["source"] == "real"
    assert (rows.loc[real, "p_yes"] == np.float32(0.9)).all()
    assert rows.loc[real, "logprob"].isna().all()
    assert rows.loc[~real, "logprob"].notna().all()
    assert rows.loc[~real, "p_yes"].nunique() > 100


def test_stated_probabilities_are_the_frequencies(world) -> None:
    tenths = judge(**world, params=HEAD)[1]["reliability"]
    assert sum(tenth["n"] for tenth in tenths) == 600
    stated = sum(tenth["n"] * tenth["mean_p_yes"] for tenth in tenths) / 600
    assert stated == pytest.approx(0.5, abs=0.02)
    assert tenths[0]["share_taken"] < 0.1 < 0.9 < tenths[-1]["share_taken"]


def test_yes_no_leaves_the_discriminators_answer(world) -> None:
    rows, facts = judge(**world, params=YES_NO)
    assert facts == {}
    expected = world["scored"][world["scored"]["source"] != "held_out"]
    assert rows["p_yes"].tolist() == expected["p_yes"].tolist()


def test_what_a_held_out_item_counts_for_itself_is_not_known_before(world) -> None:
    """An item that only its held-out row names has count 0 when it is proposed, like one that nobody takes."""
    known, held_out = world["known"], world["held_out"]
    before = known._replace(train=without_rows(known.train, held_out))
    early = world["proposed"][world["proposed"]["held_out"]].assign(p_yes=0.5)
    counts = before.train["item_id"].value_counts()
    expected = np.log1p(early["item_id"].map(counts).fillna(0).to_numpy())
    np.testing.assert_allclose(features(early, before)[:, FEATURES.index("popularity")], expected)


def test_nothing_to_learn_from_is_one_error(world) -> None:
    other = world["held_out"].assign(item_id="i00")
    proposed = world["proposed"][world["proposed"]["item_id"] != "i00"]
    scored = world["scored"][world["scored"]["item_id"] != "i00"]
    known = world["known"]._replace(train=pd.concat([world["known"].train, train_rows(*other.itertuples(index=False))]))
    with pytest.raises(DataError, match=r"none of the held-out items is among .*judge\.by: yes_no"):
        judge(scored=scored, proposed=proposed, held_out=other, known=known, params=HEAD)
