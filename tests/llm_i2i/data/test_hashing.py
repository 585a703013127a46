import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.hashing import content_sha256, seeded_hash
from llm_i2i.files import file_sha256


def test_seeded_hash_is_blake2b_of_length_prefixed_cells() -> None:
    digest = hashlib.blake2b("1:u2:é!".encode(), digest_size=8, key=b"7").digest()
    expected = int.from_bytes(digest, "little")
    assert seeded_hash(7, ["u"], ["é!"]).tolist() == [expected]
    assert seeded_hash(7, ["u"], ["é!"]).dtype == np.uint64


def test_seeded_hash_keeps_cells_and_seeds_apart() -> None:
    assert seeded_hash(1, ["ab"], ["c"])[0] != seeded_hash(1, ["a"], ["bc"])[0]
    assert seeded_hash(1, ["a:1:b"])[0] != seeded_hash(1, ["a"], ["b"])[0]
    assert seeded_hash(1, ["a"])[0] != seeded_hash(2, ["a"])[0]
    assert len(seeded_hash(1, [])) == 0
    with pytest.raises(ValueError, match="shorter"):
        seeded_hash(1, ["a", "b"], ["a"])


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), max_size=20), st.integers(0, 2**63))
def test_seeded_hash_looks_at_each_row_alone(values: list[str], seed: int) -> None:
    together = seeded_hash(seed, values)
    assert together.tolist() == [seeded_hash(seed, [value])[0] for value in values]


def test_content_sha256_follows_values_not_storage() -> None:
    table = pd.DataFrame({"a": pd.Series(["x", "yz"], dtype="str"), "n": np.array([1, 2], dtype="int32")})
    assert content_sha256(table) == content_sha256(table.set_index(pd.Index([7, 3])))
    assert content_sha256(table) == content_sha256(table.astype({"n": ">i4"}).astype({"n": "int32"}))
    others = [
        table.iloc[::-1],
        table.assign(a=["xy", "z"]).astype({"a": "str"}),
        table.assign(n=table["n"].astype("int64")),
        table.rename(columns={"n": "m"}),
        table.iloc[:1],
    ]
    assert len({content_sha256(other) for other in [table, *others]}) == 6


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
