import json

import pytest
from pydantic import ValidationError

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation import require_same_protocol
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.params import load_params
from tests.llm_i2i.evaluation.tables import protocol


def metrics(of, **more):
    values = {"protocol": of.model_dump(mode="json"), "protocol_hash": of.hash, "test_sha256": "x", **more}
    return json.loads(json.dumps(values))  # as it comes back from a file


def test_hash_is_stable_and_sees_every_field():
    one = protocol()
    assert one.hash == protocol().hash
    assert len(one.hash) == 64
    changed = {
        "version": 9, "split": "temporal", "test_share": 0.3, "valid_share": 0.3,
        "min_user_items": 9, "max_users": 9, "seed": 9, "index": "train+valid", "last_m": 3,
        "decay": 0.5, "ks": (7,), "tail_max_count": 9, "head_share": 0.9, "long_tail_share": 0.9,
    }  # fmt: skip
    for name, value in changed.items():
        assert protocol(**{name: value}).hash != one.hash, name
    fixed = {"target", "repeated_items", "split_ties", "query", "seen", "candidates", "rank_ties"}
    assert set(Protocol.model_fields) == {*changed, *fixed}


def test_frozen_and_strict():
    with pytest.raises(ValidationError):
        protocol().last_m = 3
    with pytest.raises(ValidationError, match="index"):
        Protocol.model_validate({**protocol().model_dump(), "index": "everything"})


def test_same_protocol_passes_and_another_names_the_difference():
    require_same_protocol(metrics(protocol()), metrics(protocol()))
    other = metrics(protocol(last_m=3, index="train+valid"), model="swing", arm="real")
    with pytest.raises(ArtifactError, match=r"swing-real.*index 'train' against 'train\+valid', last_m 0 against 3"):
        require_same_protocol(metrics(protocol()), other)


def test_a_tuned_model_brings_its_query_and_is_compared_only_on_request():
    params = load_params()
    own = params.train_i2i.bm25_tuned.model_copy(update={"last_m": 3, "decay": 0.8})
    params = params.model_copy(update={"train_i2i": params.train_i2i.model_copy(update={"bm25_tuned": own})})
    tuned, plain = (Protocol.from_params(params, model=model) for model in ("bm25_tuned", "swing"))
    assert (tuned.last_m, tuned.decay) == (3, 0.8)
    assert plain == Protocol.from_params(params)
    with pytest.raises(ArtifactError, match=r"protocols differ: decay 0\.8 against 1\.0, last_m 3 against 0"):
        require_same_protocol(metrics(tuned), metrics(plain))
    require_same_protocol(metrics(tuned), metrics(plain), same_query=False)
    with pytest.raises(ArtifactError, match="protocols differ: seed"):
        require_same_protocol(metrics(tuned), metrics(protocol(seed=9)), same_query=False)


def test_only_the_temporal_split_depends_on_its_shares():
    params = load_params()

    def of(**changes):
        split = params.split.model_copy(update=changes)
        return Protocol.from_params(params.model_copy(update={"split": split})).hash

    assert of(test_share=0.3) == of()
    assert of(strategy="temporal", test_share=0.3) != of(strategy="temporal") != of()


def test_edited_missing_or_other_users_are_errors():
    good = metrics(protocol())
    edited = {**good, "protocol": {**good["protocol"], "last_m": 3}}
    with pytest.raises(ArtifactError, match="protocol_hash does not belong"):
        require_same_protocol(good, edited)
    with pytest.raises(ArtifactError, match="no protocol"):
        require_same_protocol(good, {})
    with pytest.raises(ArtifactError, match="other test users or targets"):
        require_same_protocol(good, {**good, "test_sha256": "y"})
