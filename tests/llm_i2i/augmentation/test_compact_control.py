import numpy as np
import pandas as pd
import pytest

from llm_i2i.augmentation.compact_control import compact_rows
from llm_i2i.data.long_tail import tag_items
from llm_i2i.errors import TrainingError
from llm_i2i.params import Params, load_params
from llm_i2i.schema import INTERACTIONS, SYNTHETIC


@pytest.fixture(scope="module")
def train():
    """Users walk through thirty items in one order, from where they please, six items each."""
    rows = [(f"u{user:02d}", f"i{(7 * user + step) % 30:02d}", step, step) for user in range(40) for step in range(6)]
    return pd.DataFrame(rows, columns=list(INTERACTIONS)).astype(INTERACTIONS)


@pytest.fixture(scope="module")
def params():
    values = load_params().model_dump(by_alias=True)
    values["controls"]["compact"] |= {"epochs": 40.0, "learning_rate": 0.01, "accumulation": 1}
    values["synthesize"] |= {"items_per_user": 2, "num_beams": 2, "max_users": 12}
    values["runtime"] |= {"device": "cpu", "precision": "fp32", "threads": 1}
    return Params.model_validate(values)


def test_it_learns_what_users_take_next_and_writes_the_schema(train, params, tmp_path):
    raw = pd.DataFrame({"item_id": sorted(train["item_id"].unique()), "title": "a thing"})
    items = tag_items(raw, train, params=params.tag, seed=params.seed)
    rows = compact_rows(train=train, items=items, text=np.zeros((len(items), 2)), params=params, work=tmp_path)
    assert {column: str(dtype) for column, dtype in rows.dtypes.items()} == SYNTHETIC
    assert rows.groupby("user_id").size().tolist() == [2] * 12
    assert rows.merge(train, on=["user_id", "item_id"]).empty
    last = train.groupby("user_id")["item_id"].last().str[1:].astype(int)
    first = rows[rows["rank"] == 1].set_index("user_id")["item_id"].str[1:].astype(int)
    assert np.mean(first == (last.loc[first.index] + 1) % 30) > 0.7


def test_a_training_that_diverges_names_the_controls_own_rate(train, params, tmp_path):
    raw = pd.DataFrame({"item_id": sorted(train["item_id"].unique()), "title": "a thing"})
    items = tag_items(raw, train, params=params.tag, seed=params.seed)
    compact = params.controls.compact.model_copy(update={"learning_rate": 1e30})
    hot = params.model_copy(update={"controls": params.controls.model_copy(update={"compact": compact})})
    with pytest.raises(TrainingError, match=r"controls.compact, step \d+ of .*lower controls.compact.learning_rate"):
        compact_rows(train=train, items=items, text=np.zeros((len(items), 2)), params=hot, work=tmp_path)
