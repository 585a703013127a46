"""Shards: whole or not at all, of this work or not at all."""

import numpy as np

from llm_i2i.llm.engine.shards import Shards, fingerprint


def test_a_shard_comes_back_in_another_run_of_the_same_work(tmp_path):
    Shards(tmp_path / "s", "work").save(3, {"a": np.array([1, 2]), "b": np.array([0.5], dtype=np.float32)})
    again = Shards(tmp_path / "s", "work")
    assert again.found == 1
    found = again.load(3)
    assert found["a"].tolist() == [1, 2]
    assert found["b"].dtype == np.float32
    assert again.load(2) is None


def test_shards_of_other_work_are_discarded(tmp_path):
    Shards(tmp_path / "s", "work").save(0, {"a": np.array([1])})
    assert Shards(tmp_path / "s", "other").load(0) is None
    assert Shards(tmp_path / "s", "work").load(0) is None


def test_a_torn_shard_is_made_again(tmp_path):
    shards = Shards(tmp_path / "s", "work")
    shards.save(0, {"a": np.arange(100)})
    (path,) = (tmp_path / "s").glob("*.npz")
    path.write_bytes(path.read_bytes()[:60])
    assert Shards(tmp_path / "s", "work").load(0) is None


def test_fingerprints_differ_where_parts_do():
    prints = [
        fingerprint(["a", np.array([1])]),
        fingerprint(["b", np.array([1])]),
        fingerprint(["a", np.array([2])]),
        fingerprint(["ab"]),
        fingerprint(["a", "b"]),
    ]
    assert len(set(prints)) == len(prints)
