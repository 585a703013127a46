import json

import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation import evaluate_index
from llm_i2i.i2i import index_sha256, item_knn, swing, to_index, train_index, user_items_from_frame
from llm_i2i.params import load_params
from llm_i2i.schema import INDEX, PER_USER, encode
from tests.llm_i2i.evaluation.tables import (
    ARD,
    as_fused,
    catalogue,
    leave_one_out,
    protocol,
    random_interactions,
    read_ard,
)

ITEMS = pd.DataFrame(
    {
        "item_id": list("abcde"),
        "n_train": [9, 4, 4, 3, 0],
        "bucket": ["head", "tail", "tail", "tail", "cold"],
        "is_long_tail": [False, False, False, True, False],
    }
)
INDEX_TABLE = pd.DataFrame(
    [("a", "b", 0.5, 1), ("a", "c", 0.25, 2), ("a", "d", 0.25, 3), ("b", "c", 1.0, 1), ("c", "a", 1.0, 1)],
    columns=list(INDEX),
).astype(INDEX)


def rows(*triples):
    return pd.DataFrame(triples, columns=["user_id", "item_id", "position"])


def run(index=INDEX_TABLE, items=ITEMS, test=None, **changes):
    test = rows(("v", "d", 2), ("u", "c", 2), ("w", "e", 1)) if test is None else test
    train, valid = rows(("u", "a", 0), ("v", "a", 0), ("w", "b", 0)), rows(("u", "b", 1))
    return evaluate_index(index=index, train=train, valid=valid, test=test, items=items, protocol=protocol(**changes))


def test_by_hand():
    metrics, per_user = run(ks=(1, 3))
    # u: history a, b -> c 1.25, d .25: c first. v: a -> b .5, then c and d tie: d third. w: e has no score.
    assert per_user.to_dict("list") == {
        "user_id": ["u", "v", "w"],
        "item_id": ["c", "d", "e"],
        "bucket": ["tail", "tail", "cold"],
        "rank": [1, 3, 0],
    }
    assert {name: str(dtype) for name, dtype in per_user.dtypes.items()} == PER_USER
    assert metrics["n_users"] == 3
    assert metrics["overall"]["recall@1"] == pytest.approx(1 / 3)
    assert metrics["overall"]["ndcg@3"] == pytest.approx((1 + 1 / 2) / 3)
    assert metrics["overall"]["map@3"] == metrics["overall"]["mrr@3"] == pytest.approx((1 + 1 / 3) / 3)
    assert metrics["buckets"]["tail"] == pytest.approx(
        {"n_users": 2, **{f"{m}@1": 0.5 for m in ("recall", "ndcg", "hit_rate", "mrr", "map")},
         "recall@3": 1.0, "ndcg@3": 0.75, "hit_rate@3": 1.0, "mrr@3": 2 / 3, "map@3": 2 / 3}
    )  # fmt: skip
    assert metrics["buckets"]["head"] == {"n_users": 0}
    assert metrics["buckets"]["cold"]["recall@3"] == 0.0
    assert metrics["buckets"]["long_tail"]["n_users"] == 1
    assert metrics["reachable_share"] == pytest.approx(2 / 3)
    assert metrics["reachable_share_tail"] == 1.0
    assert metrics["coverage@3"] == pytest.approx(3 / 5)  # b, c, d
    assert metrics["average_popularity@3"] == pytest.approx((4 + 3 + 4 + 4 + 3 + 4) / 6)
    assert metrics["protocol_hash"] == protocol(ks=(1, 3)).hash
    json.dumps(metrics, allow_nan=False)


def test_the_query_holds_valid_and_the_protocol_decides_its_length_and_weights():
    assert run(last_m=1)[1]["rank"].tolist() == [1, 3, 0]
    assert run(test=rows(("u", "d", 2)))[1]["rank"].tolist() == [2]
    assert run(test=rows(("u", "d", 2)), last_m=1)[1]["rank"].tolist() == [0]  # only b is asked


def test_a_target_in_the_history_is_told_and_not_found(caplog):
    with caplog.at_level("WARNING"):
        _, per_user = run(test=rows(("u", "b", 2)))
    assert per_user["rank"].tolist() == [0]
    assert "1 test targets are in their user's history" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": rows(("u", "z", 1))}, "test: 1 rows name items that are not in the catalogue .first: z."),
        ({"test": rows(("u", "c", 1), ("u", "d", 2))}, "user u has more than one row"),
        ({"test": rows()}, "holds no rows"),
        ({"index": INDEX_TABLE.assign(neighbour_id="z")}, "index: 5 rows"),
        ({"items": ITEMS.assign(bucket="huge")}, "bucket 'huge'"),
    ],
)
def test_bad_tables(changes, message):
    with pytest.raises(ArtifactError, match=message):
        run(**changes)


def test_row_order_of_the_tables_does_not_matter():
    train, valid, test = leave_one_out(random_interactions())
    items = catalogue(random_interactions()["item_id"], train)
    index = to_index(item_knn(user_items_from_frame(as_fused(train), items)), items)
    given = {"index": index, "train": train, "valid": valid, "test": test}
    metrics, per_user = evaluate_index(**given, items=items, protocol=protocol())
    mixed = {name: table.sample(frac=1.0, random_state=1) for name, table in given.items()}
    again, per_user_again = evaluate_index(**mixed, items=items, protocol=protocol())
    assert metrics == again
    pd.testing.assert_frame_equal(per_user, per_user_again)
    names = ["user_id", "item_id", "neighbour_id"]
    coded = {
        name: table.assign(**{column: encode(table[column].astype("str")) for column in names if column in table})
        for name, table in mixed.items()
        if name != "test"
    }
    some = mixed["test"].iloc[:7]
    metrics, per_user = evaluate_index(**{**mixed, "test": some}, items=items, protocol=protocol())
    again, per_user_again = evaluate_index(**coded, test=some, items=items, protocol=protocol())
    assert metrics == again
    pd.testing.assert_frame_equal(per_user, per_user_again)


@pytest.mark.parametrize("model", ["swing", "bpr", "item_knn"])
def test_leak_canary_other_valid_and_test_items_change_no_byte_of_the_index(model):
    """The index is made from train; the evaluator gets the index, so what it ranks with cannot know a target."""
    interactions = random_interactions()
    train, valid, test = leave_one_out(interactions)
    items = catalogue(interactions["item_id"], train)
    left = interactions.groupby("user_id")["position"].transform("max") - interactions["position"]
    mutated = interactions.assign(item_id=interactions["item_id"].where(left >= 2, "i059"))
    mutated_train, _, mutated_test = leave_one_out(mutated)
    assert not mutated_test["item_id"].equals(test["item_id"])
    params = load_params().train_i2i
    one, other = (
        train_index(model=model, fused=as_fused(table), items=items, params=params, seed=3)
        for table in (train, mutated_train)
    )
    assert index_sha256(one) == index_sha256(other)
    # A guard that fails if the canary cannot sing: with valid in the index, the hash does change.
    leaking = train_index(model=model, fused=as_fused(pd.concat([train, valid])), items=items, params=params, seed=3)
    assert index_sha256(leaking) != index_sha256(one)


def test_leak_canary_a_list_does_not_depend_on_its_target():
    train, valid, test = leave_one_out(random_interactions())
    items = catalogue(random_interactions()["item_id"], train)
    index = to_index(item_knn(user_items_from_frame(as_fused(train), items)), items)
    given = {"index": index, "train": train, "valid": valid, "items": items, "protocol": protocol()}
    real, _ = evaluate_index(**given, test=test)
    other, _ = evaluate_index(**given, test=test.assign(item_id="i059"))
    shown = [key for key in real if key.partition("@")[0] in {"coverage", "gini", "average_popularity", "novelty"}]
    assert len(shown) == 4 * len(protocol().ks)
    assert [real[key] for key in shown] == [other[key] for key in shown]


REFERENCE = {  # recall@5, recall@10, recall@10 of targets with at most 5 training interactions
    ("toys", "swing"): (0.0454, 0.0657, 0.0210),
    ("toys", "item_knn"): (0.0488, 0.0665, 0.0704),
    ("beauty", "swing"): (0.0387, 0.0597, 0.0098),
    ("beauty", "item_knn"): (0.0394, 0.0567, 0.0442),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toys", "beauty"])
def test_reference_figures_on_ard(name):
    """Figures known beforehand: index = train, query = all history; Swing top 100, item-kNN uncut."""
    if not (ARD / name / "interactions.csv").is_file():
        pytest.skip(f"{ARD / name} is absent; set LLM_I2I_ARD to the folder of the ARD data")
    interactions = read_ard(name)
    train, valid, test = leave_one_out(interactions)
    items = catalogue(interactions["item_id"], train)
    user_items = user_items_from_frame(as_fused(train), items)
    rare = items.set_index("item_id")["n_train"] <= 5
    for model, similar in {
        "swing": swing(user_items, smoothing=1.0, user_exponent=0.5, top_k=100),
        "item_knn": item_knn(user_items, top_k=len(items)),
    }.items():
        metrics, per_user = evaluate_index(
            index=to_index(similar, items), train=train, valid=valid, test=test, items=items, protocol=protocol()
        )
        hit = per_user["rank"].between(1, 10)
        tail = hit[per_user["item_id"].map(rare)].mean()
        found = (metrics["overall"]["recall@5"], metrics["overall"]["recall@10"], tail)
        np.testing.assert_allclose(found, REFERENCE[name, model], atol=5e-4)
