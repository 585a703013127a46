import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.evaluation import evaluate_index, tuning
from llm_i2i.evaluation.tuning import GRIDS, START, tune
from llm_i2i.i2i import to_index, user_items_from_frame
from llm_i2i.i2i.train import MODELS, options_of, train_similar
from llm_i2i.params import Params, load_params
from tests.llm_i2i.evaluation.tables import as_fused, catalogue, leave_one_out, protocol, random_interactions

ROWS = random_interactions()
TRAIN, VALID, TEST = leave_one_out(ROWS)
ITEMS = catalogue(ROWS["item_id"], TRAIN)


def plain(model):
    return options_of(model, load_params().train_i2i)[1] if model in GRIDS else {}


def search(model="item_knn", **changes):
    given = {"train": TRAIN, "valid": VALID, "items": ITEMS, "trials": 6, "objective": "ndcg@10", "seed": 1,
             "plain": plain(model), "fixed": {}}  # fmt: skip
    return tune(model, **{**given, **changes})


@pytest.mark.parametrize("model", ["swing", "item_knn", "bm25"])
def test_the_value_is_what_the_evaluator_measures_on_valid(model):
    found = search(model)
    options = dict(found.options)
    query = {name: options.pop(name) for name in ("last_m", "decay")}
    user_items = user_items_from_frame(as_fused(TRAIN), ITEMS)
    similar = train_similar(model, user_items, top_k=options.pop("top_k"), options=options, seed=1)
    metrics, _ = evaluate_index(
        index=to_index(similar, ITEMS), train=TRAIN, valid=VALID.iloc[:0], test=VALID, items=ITEMS,
        protocol=protocol(**query),
    )  # fmt: skip
    assert found.value == pytest.approx(metrics["overall"]["ndcg@10"], abs=1e-12)
    assert found.value == found.trials["value"].max()
    assert len(found.trials) == 6


def test_the_first_trial_is_the_plain_model_and_the_search_repeats_itself():
    found = search("swing")
    first = found.trials.iloc[0]
    expected = {**START, **plain("swing")}
    assert {name: first[name] for name in GRIDS["swing"]} == {name: expected[name] for name in GRIDS["swing"]}
    assert found.value >= first["value"]
    pd.testing.assert_frame_equal(found.trials, search("swing").trials)
    mixed = {"train": TRAIN.sample(frac=1.0, random_state=1), "valid": VALID.sample(frac=1.0, random_state=2)}
    pd.testing.assert_frame_equal(found.trials, search("swing", **mixed).trials)
    assert not found.trials.equals(search("swing", seed=2).trials)


def test_test_rows_cannot_be_seen_and_of_valid_only_the_first_row_is_the_target():
    later = VALID.assign(position=VALID["position"] + 1, item_id="i059")
    pd.testing.assert_frame_equal(search(valid=pd.concat([later, VALID])).trials, search().trials)


def only(monkeypatch, model, **values):
    monkeypatch.setattr(tuning, "GRIDS", {**GRIDS, model: {**GRIDS[model], **values}})


def test_a_single_value_stays_and_others_are_of_the_grid(monkeypatch):
    only(monkeypatch, "swing", smoothing=(7.0,))
    found = search("swing")
    assert set(found.trials["smoothing"]) == {7.0}
    for name, values in GRIDS["swing"].items():
        if name != "smoothing":
            assert set(found.trials[name]) <= set(values)


def test_fixed_options_reach_the_model(monkeypatch):
    seen = []

    def noted(*args, **options):
        seen.append(options["options"])
        known = {name: value for name, value in options["options"].items() if name != "patience"}
        return train_similar(*args, **{**options, "options": known})

    monkeypatch.setattr(tuning, "train_similar", noted)
    search("bm25", fixed={"patience": 3}, trials=2)
    assert all(options["patience"] == 3 and "k1" in options for options in seen)


def test_bad_input():
    with pytest.raises(ParamsError, match="model is 'magic'"):
        search("magic")
    with pytest.raises(ParamsError, match="objective is 'auc@10'"):
        search(objective="auc@10")
    with pytest.raises(ParamsError, match="trials is 0"):
        search(trials=0)
    with pytest.raises(DataError, match="valid: holds no rows"):
        search(valid=VALID.iloc[:0])


def test_every_grid_is_a_tuned_section_and_holds_the_plain_value():
    params = load_params()
    raw = params.model_dump(by_alias=True)
    assert set(GRIDS) <= set(MODELS)
    for model, grid in GRIDS.items():
        assert set(type(getattr(params.train_i2i, f"{model}_tuned")).model_fields) >= set(grid)
        start = {**START, **plain(model)}
        for name, values in grid.items():
            assert start[name] in values
            for value in values:
                raw["train_i2i"][f"{model}_tuned"][name] = value
                Params.model_validate(raw)


def test_an_index_is_trained_once_for_many_queries(monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(1)
        return train_similar(*args, **options)

    monkeypatch.setattr(tuning, "train_similar", counted)
    only(monkeypatch, "item_knn", top_k=(100,), shrink=(0.0,))
    found = search(trials=12)
    assert len(calls) == 1
    assert np.isfinite(found.trials["value"]).all()
