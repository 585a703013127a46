import json

import numpy as np
import pytest

from llm_i2i.catalogue import histories_by_user
from llm_i2i.errors import DataError
from llm_i2i.llm.discriminator import train_discriminator
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.near_misses import mine_negatives
from llm_i2i.params import MineNegativesParams
from llm_i2i.schema import NEAR_MISSES

PARAMS = MineNegativesParams(items_per_user=8, num_beams=8, batch_users=4)


@pytest.fixture(scope="module")
def common(train, setup):
    return {"train": train, "setup": setup}


@pytest.fixture(scope="module")
def mine(common, params, tmp_path_factory):
    adapter = tmp_path_factory.mktemp("generator")
    settings = params.train_generator.model_copy(update={"max_windows": 4, "batch_tokens": 512})
    train_generator(**common, params=settings, out=adapter, checkpoints=adapter / "checkpoints")

    def with_kind(kind, **changes):
        return mine_negatives(
            **{**common, **changes},
            adapter=adapter,
            params=PARAMS,
            discriminator=discriminator_params(params, kind),
            checkpoints=tmp_path_factory.mktemp("shards") / "mine",
        )[0]

    return with_kind


def discriminator_params(params, kind):
    changes = {"negatives": kind, "max_histories": 12, "batch_tokens": 1024}
    return params.train_discriminator.model_copy(update=changes)


def test_near_misses_are_what_the_generator_names_and_the_user_never_took(mine, train, items):
    rows = mine("generator")
    assert {c: str(t) for c, t in rows.dtypes.items()} == NEAR_MISSES
    assert rows["item_id"].isin(items["item_id"]).all()
    assert not rows.duplicated(["user_id", "item_id"]).any()
    by_user = histories_by_user(train, items)
    taken = {u: set(items["item_id"].to_numpy()[own]) for u, own in by_user.items()}
    assert not any(item in taken[user] for user, item in zip(rows["user_id"], rows["item_id"], strict=True))
    assert len(rows[["user_id", "moment"]].drop_duplicates()) == rows["user_id"].nunique()
    assert all(
        1 <= moment < len(by_user[u]) for u, moment in zip(rows["user_id"], rows["moment"], strict=True)
    )
    # 12 histories to train on and the held-out ones beside them.
    assert 12 < rows["user_id"].nunique() < len(by_user)
    # What the user took at the moment's other side is missing from the ranks: it was named, and was no miss.
    assert rows["rank"].between(1, 8).all()
    assert len(rows) < 8 * rows["user_id"].nunique()


def test_what_comes_after_the_moment_changes_nothing_but_what_is_left_out(mine, train, items):
    rows = mine("generator")
    user, moment = rows.iloc[0][["user_id", "moment"]]
    last = train.index[train["user_id"] == user][-1]
    assert moment < (train["user_id"] == user).sum()
    other = next(i for i in items["item_id"] if i not in set(train.loc[train["user_id"] == user, "item_id"]))
    changed = mine(
        "generator", train=train.assign(item_id=train["item_id"].where(train.index != last, other))
    )
    own, now = (set(t.loc[t["user_id"] == user, "item_id"]) for t in (rows, changed))
    assert own ^ now <= {other, train.loc[last, "item_id"]}


@pytest.mark.parametrize("kind", ["random", "popularity", "item_knn"])
def test_nothing_is_mined_that_nobody_asks_for(mine, kind):
    rows = mine(kind)
    assert rows.empty
    assert {c: str(t) for c, t in rows.dtypes.items()} == NEAR_MISSES


@pytest.mark.parametrize("kind", ["generator", "hard"])
def test_the_discriminator_learns_from_them(kind, mine, common, params, tmp_path):
    out, settings = tmp_path / "out", discriminator_params(params, kind)
    facts = train_discriminator(
        **common, params=settings, out=out, checkpoints=tmp_path / "c", near_misses=mine(kind)
    )
    report = json.loads((out / "held_out.json").read_text())
    assert report["negatives"] == kind
    assert set(report["auc_by_negatives"]) == {kind, "random", "popularity"}
    assert facts["questions"] > 0
    assert np.isfinite(report["auc"])


def test_near_misses_that_are_missing_are_one_error(common, params, no_misses, tmp_path):
    settings = discriminator_params(params, "hard")
    with pytest.raises(DataError, match=r"no near misses of the generator.*dvc repro mine_negatives"):
        train_discriminator(
            **common, params=settings, out=tmp_path, checkpoints=tmp_path / "c", near_misses=no_misses
        )
