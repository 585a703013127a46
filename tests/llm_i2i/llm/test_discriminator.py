import json

import numpy as np
import pandas as pd
import pytest

from llm_i2i.catalogue import histories_by_user, without_rows
from llm_i2i.errors import DataError, TrainingError
from llm_i2i.llm import scoring
from llm_i2i.llm.discriminator import sampled_questions, train_discriminator
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.shards import Shards
from llm_i2i.llm.negatives import negative_sampler
from llm_i2i.llm.prompts import template_sha256
from llm_i2i.llm.scoring import _real_questions, score
from llm_i2i.params import ScoreParams
from llm_i2i.schema import BUCKETS, SCORED

SCORE = ScoreParams(sources=("generator",), real_rows_per_user=3, max_real_users=0, batch_tokens=1024)


def train_with(params, train, nothing, setup, out):
    settings = params.train_discriminator.model_copy(update={"max_histories": 0, "batch_tokens": 1024})
    return train_discriminator(
        train=train, held_out=nothing, setup=setup, params=settings, out=out, checkpoints=out / "checkpoints"
    )


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, params, train, nothing, setup):
    out = tmp_path_factory.mktemp("discriminator")
    train_with(params, train, nothing, setup, out)
    return out


@pytest.fixture(scope="module")
def synthetic(train, items) -> pd.DataFrame:
    rows = []
    for user, taken in train.groupby("user_id")["item_id"]:
        others = items.loc[~items["item_id"].isin(taken), "item_id"].iloc[:3]
        rows += [(user, item, rank, False) for rank, item in enumerate(others, start=1)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "rank", "held_out"])
    return table.astype({"user_id": "str", "item_id": "str", "rank": "int32"})


@pytest.fixture(scope="module")
def scores(adapter, train, synthetic, setup, tmp_path_factory):
    def score_with(params=SCORE, synthetic=synthetic, train=train, checkpoints=None, **more):
        return score(
            train=train,
            synthetic=synthetic,
            setup=setup,
            adapter=adapter,
            params=params,
            shards=Shards(checkpoints or tmp_path_factory.mktemp("shards")),
            **more,
        )

    return score_with


def test_questions_never_ask_about_the_history(train, items, params):
    by_user = histories_by_user(train, items)
    settings = params.train_discriminator
    samplers = [negative_sampler(kind, by_user, len(items), settings) for kind in ("random", "popularity")]
    asked = sampled_questions(by_user, settings, samplers=samplers, seed=0)
    assert len(asked) == len(by_user)
    for user, history, candidates, origin in asked:
        assert len(history) >= 1
        assert not set(history) & set(candidates)
        own = set(by_user[user])
        assert all((c in own) == (o == 0) for c, o in zip(candidates, origin, strict=True))
        assert (origin == 1).sum() == (origin == 2).sum() == (origin == 0).sum()


@pytest.mark.parametrize("budget", [0, 3])
def test_real_rows_are_never_asked_about_after_themselves(train, items, budget):
    by_user = histories_by_user(train, items)
    asked = list(_real_questions(by_user, 10, SCORE.model_copy(update={"real_rows_per_user": budget}), 0, apart=False))
    for user, _, history, candidates, _ in asked:
        assert 1 <= len(history) <= 10
        assert not set(history) & set(candidates)
        assert set(history) | set(candidates) <= set(by_user[user])
    n_rows = sum(len(candidates) for *_, candidates, _ in asked)
    assert n_rows == (len(train) if budget == 0 else sum(min(3, len(s) - 1) for s in by_user.values()))


def test_max_real_users_is_a_sample(train, items):
    asked = list(
        _real_questions(
            histories_by_user(train, items), 10, SCORE.model_copy(update={"max_real_users": 4}), 0, apart=False
        )
    )
    assert len({user for user, *_ in asked}) == 4


def test_held_out_report(adapter):
    report = json.loads((adapter / "held_out.json").read_text())
    assert report["auc_low"] <= report["auc"] <= report["auc_high"]
    assert sum(b["n"] for b in report["reliability"]) == report["n"]
    assert report["negatives"] == "random"
    by_kind = report["auc_by_negatives"]
    assert set(by_kind) == {"random", "popularity"}
    assert by_kind["random"]["overall"]["auc"] == report["auc"]
    for found in by_kind.values():
        real = {name: entry["n_yes"] for name, entry in found.items()}
        assert real.pop("overall") == sum(real.values())
        assert set(real) <= set(BUCKETS)


def test_every_kind_of_negatives_trains(params, train, nothing, setup, tmp_path):
    changed = params.model_copy(
        update={"train_discriminator": params.train_discriminator.model_copy(update={"negatives": "popularity"})}
    )
    train_with(changed, train, nothing, setup, tmp_path)
    report = json.loads((tmp_path / "held_out.json").read_text())
    assert set(report["auc_by_negatives"]) == {"random", "popularity"}
    assert report["auc_by_negatives"]["popularity"]["overall"]["auc"] == report["auc"]


def test_scores_every_synthetic_row_and_the_budget_of_real_rows(scores, synthetic, train):
    table, calibration, _ = scores()
    assert {c: str(t) for c, t in table.dtypes.items()} == {**SCORED, "rank": "int32"}
    assert table["p_yes"].between(0, 1).all()
    found = table[table["source"] == "synthetic"].sort_values(["user_id", "rank"], ignore_index=True)
    pd.testing.assert_frame_equal(found[["user_id", "item_id", "rank"]], synthetic.drop(columns="held_out"))
    real = table[table["source"] == "real"]
    assert set(zip(real["user_id"], real["item_id"], strict=True)) <= set(
        zip(train["user_id"], train["item_id"], strict=True)
    )
    assert calibration["n_real"] == len(real)
    assert calibration["template_sha256"] == template_sha256(calibration["template"])


def test_held_out_moments_are_scored_after_the_items_before(scores, synthetic, train, held_out):
    early = synthetic[synthetic["user_id"].isin(held_out["user_id"])]
    both = pd.concat([synthetic, early.assign(held_out=True)], ignore_index=True)
    table = scores(synthetic=both)[0]
    found = table[table["source"] == "held_out"]
    expected = scores(synthetic=early, train=without_rows(train, held_out))[0]
    expected = expected[expected["source"] == "synthetic"]
    assert found["item_id"].tolist() == expected["item_id"].tolist()
    np.testing.assert_allclose(found["p_yes"], expected["p_yes"], rtol=1e-3)


def test_rows_of_controls_are_scored_as_if_the_generator_had_written_them(scores, synthetic):
    generators, control = scores()[0], scores(source="random")[0]
    assert set(control["source"]) == {"random"}, "real rows are asked about once, with the generator's"
    own, control = (
        table[table["source"] == source].drop(columns="source").reset_index(drop=True)
        for table, source in ((generators, "synthetic"), (control, "random"))
    )
    pd.testing.assert_frame_equal(own, control, rtol=1e-4)


def test_batching_changes_no_score(scores):
    small, large = scores()[0], scores(SCORE.model_copy(update={"batch_tokens": 100_000}))[0]
    np.testing.assert_allclose(small["p_yes"], large["p_yes"], atol=1e-4)


def test_a_resumed_scoring_equals_an_uninterrupted_one(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SHARD_SEQUENCES", 10)
    whole, calibration, _ = scores(checkpoints=tmp_path / "s")
    shards = sorted((tmp_path / "s").rglob("*.npz"))
    assert len(shards) == 5
    for shard in shards[1:4]:
        shard.unlink()
    resumed, resumed_calibration, facts = scores(checkpoints=tmp_path / "s")
    assert facts["resumed_shards"] == 2
    pd.testing.assert_frame_equal(whole, resumed)
    assert calibration == resumed_calibration


def test_too_few_users(train, params, nothing, setup, tmp_path):
    with pytest.raises(DataError, match="hold"):
        train_with(params, train[train["user_id"] == "u00"], nothing, setup, tmp_path)


def test_answers_that_are_no_numbers_are_an_error(scores, monkeypatch):
    """A model that diverged in its very last step: no p_yes of it may reach a table."""
    real = TargetLogits.forward
    monkeypatch.setattr(TargetLogits, "forward", lambda *a: real(*a) * float("inf"))
    with pytest.raises(TrainingError, match="not finite"):
        scores()


def test_a_training_that_diverges_names_its_section(params, train, nothing, setup, tmp_path):
    settings = params.train_discriminator.model_copy(
        update={"max_histories": 0, "batch_tokens": 256, "accumulation": 1, "learning_rate": 1e30}
    )
    with pytest.raises(TrainingError, match=r"train_discriminator, step 2 .*lower train_discriminator.learning_rate"):
        train_discriminator(
            train=train, held_out=nothing, setup=setup, params=settings, out=tmp_path, checkpoints=tmp_path / "c"
        )
