"""Two revisions side by side, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.files import json_sha256 as protocol_hash
from llm_i2i.reporting.compare import compare_metrics, params_changes

RUN = ("swing", "llm_i2i")


def content(recall: float, *, seed: int = 1, test: str = "t") -> dict:
    protocol = {"seed": seed}
    return {
        "model": RUN[0],
        "arm": RUN[1],
        "protocol": protocol,
        "protocol_hash": protocol_hash(protocol),
        "test_sha256": test,
        "n_users": 40,
        "overall": {"recall@10": recall},
        "buckets": {"tail": {"n_users": 0}},
    }


def per_user(n_hits: int) -> pd.DataFrame:
    rank = np.array([1] * n_hits + [0] * (40 - n_hits), dtype="int32")
    users = [f"u{i:02}" for i in range(40)]
    return pd.DataFrame({"user_id": users, "item_id": "i", "bucket": "head", "rank": rank})


def compared(old: dict, new: dict, tables: dict | None = None) -> list[dict]:
    return compare_metrics({RUN: old}, {RUN: new}, tables or {}, metrics=("recall@10",), resamples=500, seed=1)


def test_difference_with_interval_where_both_sides_are_at_hand() -> None:
    (row,) = compared(content(0.25), content(0.75), {RUN: (per_user(10), per_user(30))})
    assert (row["old"], row["new"], row["difference"], row["n_users"]) == (0.25, 0.75, 0.5, 40)
    assert 0 < row["low"] < 0.5 < row["high"]
    assert row["outcome"] == "better"


def test_values_alone_without_per_user_ranks() -> None:
    (row,) = compared(content(0.25), content(0.75))
    assert "difference" not in row


def test_other_protocols_or_targets_are_refused() -> None:
    with pytest.raises(ArtifactError, match="seed 1 against 2"):
        compared(content(0.1), content(0.1, seed=2))
    with pytest.raises(ArtifactError, match="test_sha256"):
        compared(content(0.1), content(0.1, test="u"))
    with pytest.raises(ArtifactError, match="swing-llm_i2i"):
        compare_metrics({}, {RUN: content(0.1)}, {}, metrics=("recall@10",), resamples=5, seed=1)


def test_params_changes_are_found_at_any_depth_and_on_either_side() -> None:
    old = {"a": {"b": 1, "gone": None}, "c": [1, 2], "same": 0}
    new = {"a": {"b": 2}, "c": [1], "same": 0, "d": True}
    assert params_changes(old, new) == [
        {"key": "a.b", "old": "1", "new": "2"},
        {"key": "a.gone", "old": "None", "new": "–"},
        {"key": "c", "old": "[1, 2]", "new": "[1]"},
        {"key": "d", "old": "–", "new": "True"},
    ]
