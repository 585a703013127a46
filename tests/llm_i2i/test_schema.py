from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i import schema
from llm_i2i.errors import ArtifactError

COLUMNS = {"user_id": "str", "rank": "int32"}


def table() -> pd.DataFrame:
    return pd.DataFrame({"user_id": ["007", "u"], "rank": [1, 2]})


def test_round_trip_casts_and_keeps_extra_columns(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t.parquet"
    schema.write_table(table().assign(extra=[0.5, 1.5]), path, COLUMNS)
    read = schema.read_table(path, COLUMNS)
    assert read.to_dict("list") == {"user_id": ["007", "u"], "rank": [1, 2], "extra": [0.5, 1.5]}
    assert read["rank"].dtype == "int32"
    assert [found.name for found in path.parent.iterdir()] == ["t.parquet"]


def test_bytes_depend_on_content_only(tmp_path: Path) -> None:
    schema.write_table(table(), tmp_path / "a.parquet", COLUMNS)
    schema.write_table(table().set_index(pd.Index([9, 4])), tmp_path / "b.parquet", COLUMNS)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_empty_table_keeps_its_types(tmp_path: Path) -> None:
    schema.write_table(table().iloc[:0], tmp_path / "t.parquet", COLUMNS)
    read = schema.read_table(tmp_path / "t.parquet", COLUMNS)
    assert read.dtypes.astype(str).to_dict() == COLUMNS


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"t\.parquet: no such file; run `dvc repro`"):
        schema.read_table(tmp_path / "t.parquet", COLUMNS)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="unreadable"):
        schema.read_table(tmp_path / "t.parquet", COLUMNS)


def test_wrong_columns_are_all_named(tmp_path: Path) -> None:
    table().astype({"rank": "int64"}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ArtifactError) as caught:
        schema.read_table(tmp_path / "t.parquet", {**COLUMNS, "score": "float32"})
    assert "columns {'rank': 'int64', 'score': 'missing'}" in str(caught.value)
    assert "expected {'rank': 'int32', 'score': 'float32'}" in str(caught.value)


def test_identifiers_are_strings_everywhere() -> None:
    tables = [
        schema.INTERACTIONS, schema.ITEMS, schema.SYNTHETIC, schema.SCORED, schema.FUSED, schema.INDEX,
        schema.PER_USER,
    ]  # fmt: skip
    for columns in tables:
        assert columns[schema.ITEM_ID] == "str"
        assert columns.get(schema.USER_ID, "str") == "str"


def test_an_encoded_table_is_written_as_the_same_bytes(tmp_path) -> None:
    ids = pd.Series(["b", "ä", "a", "b"], dtype="str")
    table = pd.DataFrame({"user_id": ids, "item_id": ids[::-1].to_numpy(), "timestamp": 1, "position": range(4)})
    table = table.astype(schema.INTERACTIONS)
    for name, rows in {"some": table, "none": table.iloc[:0]}.items():
        plain, again = tmp_path / f"{name}.parquet", tmp_path / "again.parquet"
        rows.to_parquet(plain, index=False)
        encoded = schema.read_table(plain, schema.INTERACTIONS, encoded=True)
        assert encoded["user_id"].cat.categories.is_monotonic_increasing
        schema.write_table(encoded, again, schema.INTERACTIONS)
        assert plain.read_bytes() == again.read_bytes()


TEXTS = st.lists(st.sampled_from(["b", "a", "ä", "", "\U0001f43b", None]), max_size=8)


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_common_codes_and_stacks_keep_every_text(texts: list[list[str | None]]) -> None:
    plain = [pd.Series(one, dtype="str") for one in texts]
    encoded = [schema.encode(one) for one in plain]
    common = schema.common_codes(*encoded)
    for one, column in zip(plain, common, strict=True):
        pd.testing.assert_series_equal(schema.decode(pd.Series(column)), one)
        assert column.categories.equals(common[0].categories)
        assert column.categories.is_monotonic_increasing
    stacked = schema.stack(*(one.to_frame("x") for one in encoded))["x"]
    assert schema.is_encoded(stacked)
    pd.testing.assert_series_equal(schema.decode(stacked), pd.concat(plain, ignore_index=True), check_names=False)


@given(st.lists(st.sampled_from(["b", "a", "ä", "", "\U0001f43b"]), max_size=8))
@settings(max_examples=40, deadline=None)
def test_text_bytes_are_the_texts_end_to_end(texts: list[str]) -> None:
    column = schema.encode(pd.Series(texts, dtype="str"))
    assert b"".join(schema.text_bytes(column)) == "".join(texts).encode()
    assert b"".join(schema.text_bytes(column, end="\n")) == "".join(f"{text}\n" for text in texts).encode()
