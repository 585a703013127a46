"""Every edition's own spelling, in files written here by hand."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i.data import amazon
from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError

REVIEWS_2014 = """\
{"reviewerID": "U1", "asin": "0000000007", "overall": 5.0, "unixReviewTime": 1300000000, "reviewText": "good"}
{"reviewerID": "U2", "asin": "0000000007", "overall": 3.0, "unixReviewTime": 1300000500}

{"reviewerID": "U1", "asin": "B00TOY", "overall": 4.0, "unixReviewTime": 1200000000}
{"reviewerID": "U1", "asin": "B00TOY", "overall": 1.0, "unixReviewTime": 1100000000}
"""
# Not JSON: single quotes, None, a quote inside double quotes.
META_2014 = """\
{'asin': '0000000007', 'title': "A Child's &amp; Game", 'categories': [['Toys', 'Games'], ['Gifts']], 'brand': None}
{'asin': 'B00ELSE', 'title': 'nobody rated it'}
"""
REVIEWS_2018 = """\
{"overall": 5.0, "verified": true, "reviewerID": "U1", "asin": "0000000007", "unixReviewTime": 1500000000}
"""
META_2018 = """\
{"category": ["Toys", "Games"], "title": "<b>Tin</b>\\nrobot", "brand": "Acme", "asin": "0000000007"}
"""
REVIEWS_2023 = """\
{"rating": 5.0, "asin": "VARIANT", "parent_asin": "0000000007", "user_id": "U1", "timestamp": 1588687728923}
"""
META_2023 = """\
{"title": "Kite", "store": "Acme", "categories": ["Toys", "Kites"], "parent_asin": "0000000007"}
"""


def run(
    folder: Path, year: str, reviews: str, meta: str, *, name: str = "reviews.json", core: str = "0"
) -> int:
    if name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(reviews.encode()))
    else:
        (folder / name).write_text(reviews, encoding="utf-8")
    (folder / "meta.json.gz").write_bytes(gzip.compress(meta.encode()))
    return amazon.main(
        ["--year", year, "--reviews", str(folder / name), "--meta", str(folder / "meta.json.gz"),
         "--out", str(folder / "data"), "--core", core]
    )  # fmt: skip


def test_2014_loose_metadata_repeated_reviews_and_the_projects_own_reader(tmp_path: Path) -> None:
    assert run(tmp_path, "2014", REVIEWS_2014, META_2014, name="reviews.json.gz") == 0
    assert (tmp_path / "data" / "interactions.csv").read_text() == (
        "user_id,item_id,rating,timestamp\n"
        "U1,0000000007,5.0,1300000000\n"
        "U2,0000000007,3.0,1300000500\n"
        "U1,B00TOY,1.0,1100000000\n"  # the first in time
    )
    assert (tmp_path / "data" / "items.csv").read_text() == (
        "item_id,title,category,brand\n0000000007,A Child's & Game,Toys > Games,\nB00TOY,,,\n"
    )
    raw = read_raw(tmp_path / "data")
    assert raw.interactions["item_id"].tolist() == ["0000000007", "0000000007", "B00TOY"]
    assert raw.order == "timestamp"


@pytest.mark.parametrize(
    ("year", "reviews", "meta", "name", "when", "item"),
    [
        ("2018", REVIEWS_2018, META_2018, "r.json", 1500000000, ["0000000007", "Tin robot", "Toys > Games", "Acme"]),
        ("2018", "0000000007,U1,5.0,1500000000\n", META_2018, "r.csv", 1500000000,
         ["0000000007", "Tin robot", "Toys > Games", "Acme"]),
        ("2014", "U1,0000000007,5.0,1500000000\n", META_2018, "r.csv", 1500000000,
         ["0000000007", "Tin robot", "", "Acme"]),
        ("2023", REVIEWS_2023, META_2023, "r.jsonl", 1588687728, ["0000000007", "Kite", "Toys > Kites", "Acme"]),
        ("2023", "user_id,parent_asin,rating,timestamp\nU1,0000000007,5.0,1588687728923\n", META_2023, "r.csv",
         1588687728, ["0000000007", "Kite", "Toys > Kites", "Acme"]),
    ],
)  # fmt: skip
def test_each_editions_spelling(tmp_path: Path, year, reviews, meta, name, when, item) -> None:
    assert run(tmp_path, year, reviews, meta, name=name) == 0
    raw = read_raw(tmp_path / "data")
    (row,) = raw.interactions.to_dict(orient="records")
    assert row == {"user_id": "U1", "item_id": "0000000007", "rating": 5.0, "timestamp": when}
    found = raw.items.iloc[0].astype(object).where(raw.items.iloc[0].notna(), "")
    assert found.tolist() == item


@pytest.mark.parametrize(
    ("reviews", "told"),
    [
        (REVIEWS_2014 + '{"reviewerID": "U1"}\n', "line 6: KeyError 'asin'"),
        (REVIEWS_2014 + "__import__('os').getcwd()\n", "1 broken line(s) (line 6"),
        ('{"reviewerID": "U1", "asin": "A", "overall": "x", "unixReviewTime": 1}\n', "line 1: ValueError"),
        ("[1]\n", "holds list"),
    ],
)
def test_broken_lines_are_told_with_their_number(tmp_path: Path, caplog, reviews, told) -> None:
    assert run(tmp_path, "2014", reviews, META_2014) == 1
    assert told in caplog.text
    assert not (tmp_path / "data").exists()


def test_a_cut_archive_is_no_result(tmp_path: Path, caplog) -> None:
    whole = gzip.compress(REVIEWS_2014.encode() * 50)
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        amazon.read_reviews(tmp_path / "cut.json.gz", amazon.EDITIONS["2014"])


def test_own_tables_are_not_overwritten(tmp_path: Path, caplog) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "items.parquet").write_bytes(b"mine")
    assert run(tmp_path, "2014", REVIEWS_2014, META_2014) == 1
    assert "is there already" in caplog.text


def test_k_core_by_hand() -> None:
    """u3 goes for want of items, then i3 for want of users, then nothing more."""
    pairs = [("u1", "i1"), ("u1", "i2"), ("u1", "i3"), ("u2", "i1"), ("u2", "i2"), ("u3", "i3")]
    kept = amazon.k_core(pd.DataFrame(pairs, columns=["user_id", "item_id"]), 2)
    assert list(kept.itertuples(index=False, name=None)) == [
        ("u1", "i1"),
        ("u1", "i2"),
        ("u2", "i1"),
        ("u2", "i2"),
    ]
    with pytest.raises(DataError, match="nothing is left"):
        amazon.k_core(kept, 3)


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1), st.integers(0, 4))
def test_k_core_keeps_the_largest_set_that_is_one(pairs: set[tuple[int, int]], k: int) -> None:
    table = pd.DataFrame(sorted(pairs), columns=["user_id", "item_id"])
    wanted = set(pairs)
    while True:  # one weak user or item at a time, in another order than the code
        weak = {p for p in wanted if min(sum(q[side] == p[side] for q in wanted) for side in (0, 1)) < k}
        if not weak:
            break
        wanted -= {min(weak)}
    if wanted:
        assert set(amazon.k_core(table, k).itertuples(index=False, name=None)) == wanted
    else:
        with pytest.raises(DataError):
            amazon.k_core(table, k)
