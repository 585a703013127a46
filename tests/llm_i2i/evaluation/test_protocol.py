import json

import pytest
from pydantic import ValidationError

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation import require_same_protocol
from llm_i2i.evaluation.protocol import Protocol
from tests.llm_i2i.evaluation.tables import protocol


def metrics(of, **more):
    values = {"protocol": of.model_dump(mode="json"), "protocol_hash": of.hash, "test_sha256": "x", **more}
    return json.loads(json.dumps(values))  # as it comes back from a file


def test_hash_is_stable_and_sees_every_field():
    one = protocol()
    assert one.hash == protocol().hash
    assert len(one.hash) == 64
    changed = {
        "version": 2, "min_user_items": 9, "max_users": 9, "seed": 9, "index": "train+valid", "last_m": 3,
        "decay": 0.5, "ks": (7,), "tail_max_count": 9, "head_share": 0.9, "long_tail_share": 0.9,
    }  # fmt: skip
    for name, value in changed.items():
        assert protocol(**{name: value}).hash != one.hash, name
    fixed = {"split", "split_ties", "query", "seen", "candidates", "rank_ties"}
    assert set(Protocol.model_fields) == {*changed, *fixed}


def test_frozen_and_strict():
    with pytest.raises(ValidationError):
        protocol().last_m = 3
    with pytest.raises(ValidationError, match="index"):
        Protocol.model_validate({**protocol().model_dump(), "index": "everything"})


def test_same_protocol_passes_and_another_names_the_difference():
    require_same_protocol(metrics(protocol()), metrics(protocol()))
    other = metrics(protocol(last_m=3, index="train+valid"), model="swing", arm="real")
    with pytest.raises(
        ArtifactError, match=r"swing-real.*index 'train' against 'train\+valid', last_m 0 against 3"
    ):
        require_same_protocol(metrics(protocol()), other)


def test_edited_missing_or_other_users_are_errors():
    good = metrics(protocol())
    edited = {**good, "protocol": {**good["protocol"], "last_m": 3}}
    with pytest.raises(ArtifactError, match="protocol_hash does not belong"):
        require_same_protocol(good, edited)
    with pytest.raises(ArtifactError, match="no protocol"):
        require_same_protocol(good, {})
    with pytest.raises(ArtifactError, match="other test users or targets"):
        require_same_protocol(good, {**good, "test_sha256": "y"})
