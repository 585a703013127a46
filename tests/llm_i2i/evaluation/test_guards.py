"""The two guards of the evaluation, each shown to be what stops a wrong number: without it, the wrong number comes."""

import pandas as pd
import pytest

from llm_i2i.augmentation import fusion
from llm_i2i.augmentation.controls import RECOMMENDERS, control_rows
from llm_i2i.data.hashing import content_sha256
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation import Measured, PairedDifference, evaluate_index, paired
from llm_i2i.i2i import index_sha256, train_index
from llm_i2i.params import load_params
from llm_i2i.schema import JUDGED
from tests.llm_i2i.evaluation.tables import as_fused, catalogue, leave_one_out, protocol, random_interactions

ROWS = random_interactions()
LEFT = ROWS.groupby("user_id")["position"].transform("max") - ROWS["position"]
MUTATED = ROWS.assign(item_id=ROWS["item_id"].where(LEFT >= 2, "i059"))
ITEMS = catalogue(ROWS["item_id"], leave_one_out(ROWS)[0])
PARAMS = load_params()
FUSE = PARAMS.fuse.model_copy(update={"threshold": 0.5})


def fingerprints(interactions: pd.DataFrame) -> dict[str, str]:
    """Hashes of all that is made after the split and before the evaluation, without an LLM."""
    train, valid, _ = leave_one_out(interactions)
    users = sorted(train["user_id"].unique())
    generated = pd.DataFrame({"user_id": users, "item_id": "", "rank": 1, "held_out": False})
    found = {}
    controls = {
        name: control_rows(name, train=train, synthetic=generated, items=ITEMS, seed=1) for name in RECOMMENDERS
    }
    rows = controls["random"][["user_id", "item_id"]]
    scored = rows.assign(source="synthetic", p_yes=0.5, rank=1, logprob=-1.0).astype(JUDGED)
    for arm in ("real", "no_discriminator", *RECOMMENDERS):
        fused, _ = fusion.fuse(
            arm=arm, train=train, valid=valid, scored=scored, items=ITEMS, params=FUSE,
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
    monkeypatch.setattr(fusion, "_visible", lambda valid, _: valid)
    found = leaks()
    assert {"fused real", "index real", "fused item_knn", "index item_knn"} <= set(found)
    assert not set(found) & set(RECOMMENDERS)


def run(**changes):
    train, valid, test = leave_one_out(ROWS)
    index = train_index(model="item_knn", fused=as_fused(train), items=ITEMS, params=PARAMS.train_i2i, seed=1)
    return evaluate_index(index=index, train=train, valid=valid, test=test, items=ITEMS, protocol=protocol(**changes))


def difference(one, other, **options) -> tuple[float, float, float]:
    pair = PairedDifference(*(Measured.once(table, metrics) for metrics, table in (one, other)), **options)
    return pair.interval("ndcg@10", resamples=200, seed=1)


def test_a_comparison_across_protocols_is_refused_and_only_by_the_guard(monkeypatch):
    one, other = run(), run(index="train+valid")
    with pytest.raises(ArtifactError, match=r"protocols differ: index 'train' against 'train\+valid'"):
        difference(one, other)
    monkeypatch.setattr(paired, "require_same_protocol", lambda *_, **__: None)
    assert difference(one, other) == (0.0, 0.0, 0.0)  # a number that means nothing


def test_an_edited_protocol_does_not_pass_with_its_old_hash():
    metrics, per_user = run()
    edited = {**metrics, "protocol": {**metrics["protocol"], "decay": 0.5}}
    with pytest.raises(ArtifactError, match="does not belong"):
        difference((edited, per_user), (metrics, per_user))


def test_another_query_compares_only_where_it_is_allowed():
    one, short = run(), run(last_m=2)
    with pytest.raises(ArtifactError, match="last_m"):
        difference(short, one)
    assert difference(short, one, same_query=False)[0] != 0.0
