import numpy as np
import pandas as pd
import pytest

from llm_i2i.augmentation.controls import RECOMMENDERS, control_rows
from llm_i2i.catalogue import Histories
from llm_i2i.errors import ParamsError
from llm_i2i.i2i import item_knn, recommend, user_items_from_frame
from llm_i2i.schema import SYNTHETIC
from tests.llm_i2i.evaluation.tables import as_fused, catalogue, leave_one_out, random_interactions

ROWS = random_interactions()
TRAIN, VALID, TEST = leave_one_out(ROWS)
ITEMS = catalogue(ROWS["item_id"], TRAIN)
SIZES = {"u0003": 5, "u0001": 2, "u0007": 1}
GENERATED = pd.DataFrame(
    [(user, f"i{n:03d}", n + 1) for user, size in SIZES.items() for n in range(size)],
    columns=["user_id", "item_id", "rank"],
).assign(held_out=False)


def write(name: str, seed: int = 1, train: pd.DataFrame = TRAIN) -> pd.DataFrame:
    return control_rows(name, train=train, synthetic=GENERATED, items=ITEMS, seed=seed)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_same_users_same_volume_unseen_and_distinct(name):
    rows = write(name)
    assert {column: str(dtype) for column, dtype in rows.dtypes.items()} == SYNTHETIC
    assert rows.groupby("user_id").size().to_dict() == SIZES
    assert not rows.duplicated(["user_id", "item_id"]).any()
    assert rows.groupby("user_id")["rank"].agg(list).to_dict() == {
        user: list(range(1, size + 1)) for user, size in SIZES.items()
    }
    assert rows.merge(TRAIN, on=["user_id", "item_id"]).empty
    pd.testing.assert_frame_equal(rows, write(name, train=TRAIN.sample(frac=1.0, random_state=3)))


def test_popularity_by_hand():
    counts = TRAIN["item_id"].value_counts()
    found = write("popularity").set_index("user_id")["item_id"]
    for user in SIZES:
        taken = set(TRAIN.loc[TRAIN["user_id"] == user, "item_id"])
        best = sorted((counts[item] for item in counts.index if item not in taken), reverse=True)
        assert [counts[item] for item in found.loc[[user]]] == best[: SIZES[user]]


def test_item_knn_is_the_users_own_list():
    user_items = user_items_from_frame(as_fused(TRAIN), ITEMS)
    own = TRAIN[TRAIN["user_id"] == "u0003"].sort_values("position")["item_id"]
    indices = pd.Index(ITEMS["item_id"]).get_indexer(own)
    history = Histories(np.array([0, len(own)]), indices.astype(np.int32))
    lists = recommend(item_knn(user_items), history, top_k=5).lists[0]
    rows = write("item_knn")
    assert rows.loc[rows["user_id"] == "u0003", "item_id"].tolist() == ITEMS["item_id"].iloc[lists].tolist()


def test_item_knn_is_filled_up_by_popularity():
    lonely = pd.DataFrame({"user_id": ["u0001"], "item_id": ["i059"], "position": [0]})
    train = pd.concat([TRAIN[(TRAIN["user_id"] != "u0001") & (TRAIN["item_id"] != "i059")], lonely])
    knn, popular = (write(name, train=train).set_index("user_id")["item_id"] for name in ("item_knn", "popularity"))
    assert knn.loc["u0001"].tolist() == popular.loc["u0001"].tolist()


def test_random_is_uniform_over_unseen_items():
    users = [f"x{n:04d}" for n in range(3000)]
    generated = pd.DataFrame({"user_id": users, "item_id": "i000", "rank": 1, "held_out": False})
    train = pd.DataFrame({"user_id": users, "item_id": "i007", "position": 0})
    rows = control_rows("random", train=train, synthetic=generated, items=ITEMS, seed=2)
    counts = rows["item_id"].value_counts().reindex(ITEMS["item_id"], fill_value=0)
    assert counts["i007"] == 0
    expected = 3000 / (len(ITEMS) - 1)
    assert counts.drop("i007").between(expected - 5 * expected**0.5, expected + 5 * expected**0.5).all()
    assert not rows["item_id"].equals(
        control_rows("random", train=train, synthetic=generated, items=ITEMS, seed=3)["item_id"]
    )


def test_a_user_who_took_all_gets_none_and_others_as_many():
    everything = pd.DataFrame({"user_id": "u0001", "item_id": ITEMS["item_id"], "position": range(len(ITEMS))})
    train = pd.concat([TRAIN[TRAIN["user_id"] != "u0001"], everything])
    for name in RECOMMENDERS:
        assert write(name, train=train).groupby("user_id").size().to_dict() == {"u0003": 5, "u0007": 1}


def test_unknown_name():
    with pytest.raises(ParamsError, match=r"random \| popularity \| item_knn"):
        write("oracle")
