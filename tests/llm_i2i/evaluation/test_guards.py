"""The two guards of the evaluation, each shown to be what stops a wrong number: without it, the wrong number comes."""

import pandas as pd
import pytest

from llm_i2i.augmentation import fusion
from llm_i2i.augmentation.controls import RECOMMENDERS, control_rows
from llm_i2i.data.hashing import content_sha256
from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.evaluation import compare, compare_runs, evaluate_index, paired_bootstrap, per_user_metric
from llm_i2i.i2i import index_sha256, train_index
from llm_i2i.params import load_params
from llm_i2i.schema import SCORED
from tests.llm_i2i.evaluation.tables import as_fused, catalogue, leave_one_out, protocol, random_interactions

ROWS = random_interactions()
LEFT = ROWS.groupby("user_id")["position"].transform("max") - ROWS["position"]
MUTATED = ROWS.assign(item_id=ROWS["item_id"].where(LEFT >= 2, "i059"))
ITEMS = catalogue(ROWS["item_id"], leave_one_out(ROWS)[0])
PARAMS = load_params()


def fingerprints(interactions: pd.DataFrame) -> dict[str, str]:
    """Hashes of all that is made after the split and before the evaluation, without an LLM."""
    train, valid, _ = leave_one_out(interactions)
    users = sorted(train["user_id"].unique())
    generated = pd.DataFrame({"user_id": users, "item_id": "", "rank": 1})
    found = {}
    controls = {
        name: control_rows(name, train=train, synthetic=generated, items=ITEMS, seed=1)
        for name in RECOMMENDERS
    }
    rows = controls["random"][["user_id", "item_id"]]
    scored = rows.assign(source="synthetic", p_yes=0.5, rank=1).astype({**SCORED, "rank": "int32"})
    for arm in ("real", "no_discriminator", *RECOMMENDERS):
        fused, _ = fusion.fuse(
            arm=arm, train=train, valid=valid, scored=scored, items=ITEMS, params=PARAMS.fuse,
            control=controls.get(arm),
        )  # fmt: skip
        found[f"fused {arm}"] = content_sha256(fused)
        index = train_index(model="item_knn", fused=fused, items=ITEMS, params=PARAMS.train_i2i, seed=1)
        found[f"index {arm}"] = index_sha256(index)
    found |= {name: content_sha256(rows[["user_id", "item_id", "rank"]]) for name, rows in controls.items()}
    return found


def leaks() -> list[str]:
    """What changes when every user's valid and test items do."""
    one, other = fingerprints(ROWS), fingerprints(MUTATED)
    return [name for name in one if one[name] != other[name]]


def test_nothing_before_the_evaluation_depends_on_valid_or_test_items():
    assert leave_one_out(ROWS)[0].equals(leave_one_out(MUTATED)[0])
    assert leaks() == []


def test_the_canary_sings_without_the_guard(monkeypatch):
    monkeypatch.setattr(
        fusion, "_visible", lambda train, valid, _: pd.concat([train, valid])[["user_id", "item_id"]]
    )
    found = leaks()
    assert {"fused real", "index real", "fused item_knn", "index item_knn"} <= set(found)
    assert not set(found) & set(RECOMMENDERS)


def run(**changes):
    train, valid, test = leave_one_out(ROWS)
    index = train_index(model="item_knn", fused=as_fused(train), items=ITEMS, params=PARAMS.train_i2i, seed=1)
    return evaluate_index(
        index=index, train=train, valid=valid, test=test, items=ITEMS, protocol=protocol(**changes)
    )


GIVEN = {"metric": "ndcg@10", "resamples": 200, "seed": 1}


def test_a_comparison_across_protocols_is_refused_and_only_by_the_guard(monkeypatch):
    one, other = run(), run(index="train+valid")
    with pytest.raises(ArtifactError, match=r"protocols differ: index 'train' against 'train\+valid'"):
        compare_runs(one, other, **GIVEN)
    monkeypatch.setattr(compare, "require_same_protocol", lambda *_, **__: None)
    assert compare_runs(one, other, **GIVEN) == (0.0, 0.0, 0.0)  # a number that means nothing


def test_an_edited_protocol_does_not_pass_with_its_old_hash():
    metrics, per_user = run()
    edited = {**metrics, "protocol": {**metrics["protocol"], "decay": 0.5}}
    with pytest.raises(ArtifactError, match="does not belong"):
        compare_runs((edited, per_user), (metrics, per_user), **GIVEN)


def test_compare_is_the_paired_bootstrap_of_the_same_users():
    one, short = run(), run(last_m=2)
    with pytest.raises(ArtifactError, match="last_m"):
        compare_runs(short, one, **GIVEN)
    mixed = (short[0], short[1].sample(frac=1.0, random_state=1))
    a, b = (per_user_metric("ndcg@10", table["rank"].to_numpy()) for table in (short[1], one[1]))
    expected = paired_bootstrap(a, b, resamples=200, seed=1)
    assert compare_runs(mixed, one, **GIVEN, same_query=False) == expected
    tail = (one[1]["bucket"] == "tail").to_numpy()
    expected = paired_bootstrap(a[tail], b[tail], resamples=200, seed=1)
    assert compare_runs(mixed, one, **GIVEN, same_query=False, bucket="tail") == expected
    with pytest.raises(DataError, match="bucket 'none'"):
        compare_runs(one, one, **GIVEN, bucket="none")
    others = (one[0], one[1].assign(item_id="i000"))
    with pytest.raises(ArtifactError, match="other users or targets"):
        compare_runs(one, others, **GIVEN)
