"""Every edition's own spelling, in files written here by hand."""

import gzip
import json
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


def run(folder: Path, year: str, reviews: str, meta: str, *, name: str = "reviews.json", core: str = "0") -> int:
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
        ("2023", REVIEWS_2023, META_2023, "r.jsonl", 1588687728923, ["0000000007", "Kite", "Toys > Kites", "Acme"]),
        ("2023", "user_id,parent_asin,rating,timestamp\nU1,0000000007,5.0,1588687728923\n", META_2023, "r.csv",
         1588687728923, ["0000000007", "Kite", "Toys > Kites", "Acme"]),
    ],
)  # fmt: skip
def test_each_editions_spelling(tmp_path: Path, year, reviews, meta, name, when, item) -> None:
    assert run(tmp_path, year, reviews, meta, name=name) == 0
    raw = read_raw(tmp_path / "data")
    (row,) = raw.interactions.to_dict(orient="records")
    assert row == {"user_id": "U1", "item_id": "0000000007", "rating": 5.0, "timestamp": when}
    found = raw.items.iloc[0].astype(object).where(raw.items.iloc[0].notna(), "")
    assert found.tolist() == item


def items_of(folder: Path, *entries: str) -> list[list[str]]:
    """What is written of the one item of REVIEWS_2018, for metadata of that edition."""
    (folder / "out").mkdir(exist_ok=True)
    (folder / "meta.json").write_text("\n".join(entries), encoding="utf-8")
    table = amazon.read_items(folder / "meta.json", amazon.EDITIONS["2018"], {"A"})
    return table.to_numpy().tolist()


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("x < 5 and y > 3", "x < 5 and y > 3"),
        ("a<b and c>d", "a<b and c>d"),
        ("<Untitled> I <3 you", "<Untitled> I <3 you"),
        ("H<sub>2</sub>O<br/>for <A HREF='x>y' target=_top>you</a><!-- no -->", "H2O for you"),
        ("<p>one</p><p>two</p>", "one two"),
        ("AT&amp;T &lt;b&gt; &shyness ?a=1&copy=2 &#233;", "AT&T <b> &shyness ?a=1&copy=2 é"),
        ("Bear<script>var x = 1;</script><style>.a{b:c}</style>", "Bear"),
        ("var aPageStart = (new Date()).getTime();\\nvar ue_t0=ue_t0||+new Date();", ""),
        ("(function(w){ window.x = 1; })()", ""),
        ("(() => { go(1); })(); if (window.ue) ue.count(1)", ""),
        ("const isBot = true;", ""),
        ('{\\"isAjaxInProgress\\":false}', ""),
        ("Let Go = Fly, const. speed {blue}", "Let Go = Fly, const. speed {blue}"),
        ("Set<select><option value=1>Red</option></select><button type='b'>Buy</button>", "SetRedBuy"),
        ("Lamp<svg id=x><path d='M0'/></svg><wbr>shade <Label> <Time Machine>", "Lampshade <Time Machine>"),
        (".a-section { margin: 0; }", ""),
        ("Functions of one variable: a window to C++", "Functions of one variable: a window to C++"),
        ("Cute \\ud83d bear", "Cute bear"),
        ("\\udc3b\\ud83d\\udc3b", "\U0001f43b"),
    ],
)
def test_titles_lose_tags_and_scripts_and_nothing_else(tmp_path: Path, title: str, clean: str) -> None:
    ((_, found, _, _),) = items_of(tmp_path, f'{{"asin": "A", "title": "{title}"}}')
    assert found == clean


def test_halves_in_a_python_literal_belong_together(tmp_path: Path) -> None:
    assert items_of(tmp_path, "{'asin': 'A', 'title': 'Cute \\ud83d\\udc3b', 'x': None}")[0][1] == "Cute \U0001f43b"


@pytest.mark.parametrize(
    ("category", "path"),
    [
        ('["Sports", "</i></b>"]', "Sports"),
        ('["", "Sports", " ", "Golf"]', "Sports > Golf"),
        ('[[], ["Sports"]]', "Sports"),
        ('["a > b", {}, null]', "a > b"),
        ("null", ""),
    ],
)
def test_empty_parts_of_a_category_go(tmp_path: Path, category: str, path: str) -> None:
    assert items_of(tmp_path, f'{{"asin": "A", "category": {category}}}')[0][2] == path


def test_what_the_first_entry_of_an_item_lacks_a_later_one_gives(tmp_path: Path) -> None:
    entries = ['{"asin": "A", "title": "", "brand": "Acme"}', '{"asin": "B", "title": "other"}',
               '{"asin": "A", "title": "var a = 1;"}', '{"asin": "A", "title": "Real", "brand": "Else"}',
               '{"asin": "A", "title": "Later", "category": ["Toys"]}', '{"asin": ["A"], "title": "no"}']  # fmt: skip
    assert items_of(tmp_path, *entries) == [["A", "Real", "Toys", "Acme"]]


def test_metadata_of_other_reviews_is_refused(tmp_path: Path) -> None:
    """Also those of the right items, where --year takes users for items."""
    with pytest.raises(DataError, match=r"describes none of 1 items \(first: 'A'\).*--year"):
        items_of(tmp_path, '{"asin": "B", "title": "Bear"}')


@pytest.mark.parametrize("blank", ["\n", "  \n", ",,,\n", "\r\n\r\n"])
@pytest.mark.parametrize("first", ["\ufeff", ""])
def test_blank_lines_of_a_ratings_file(tmp_path: Path, blank: str, first: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"{first}U1,A,5.0,1\n{blank}U2,A,4.0,2\n{blank}", encoding="utf-8", newline="")
    table = amazon.read_reviews(path, amazon.EDITIONS["2014"])
    assert table.to_numpy().tolist() == [["U1", "A", 5.0, 1], ["U2", "A", 4.0, 2]]


def test_milliseconds_stay(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    times = [1400000000100, 1400000000000, "1400000000200"]
    lines = [
        json.dumps({"user_id": "U", "parent_asin": f"A{n}", "rating": 5, "timestamp": time})
        for n, time in enumerate(times)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = amazon.read_reviews(path, amazon.EDITIONS["2023"])["timestamp"].tolist()
    assert found == [1400000000100, 1400000000000, 1400000000200]


@pytest.mark.parametrize(
    "wrong", ['"unixReviewTime": 1.75', '"unixReviewTime": NaN', '"unixReviewTime": 1e30', '"overall": NaN',
              '"asin": ["A"]', '"asin": "\\ud83d"', '"asin": ""', '"reviewerID": true']
)  # fmt: skip
def test_values_that_would_change_are_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(f'{{"reviewerID": "U", "asin": "A", "overall": 5, "unixReviewTime": 1, {wrong}}}\n')
    with pytest.raises(DataError, match=r"1 broken line\(s\) \(line 1"):
        amazon.read_reviews(path, amazon.EDITIONS["2014"])


def test_an_archive_damaged_at_any_byte_is_read_whole_or_refused(tmp_path: Path) -> None:
    lines = "".join(f"U{n},A{n % 3},5.0,{n}\n" for n in range(40))
    whole = gzip.compress(lines.encode(), mtime=0)
    path = tmp_path / "r.csv.gz"
    path.write_bytes(whole)
    right = amazon.read_reviews(path, amazon.EDITIONS["2014"])
    refused = 0
    for place in range(len(whole)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            path.write_bytes(damaged)
            try:
                pd.testing.assert_frame_equal(amazon.read_reviews(path, amazon.EDITIONS["2014"]), right)
            except DataError:
                refused += 1
    assert refused > 2 * len(whole)


def test_rows_that_go_are_told(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    (tmp_path / "r.csv").write_text("U,A,5,1\n" * 3 + "U,B,5,1\n")
    amazon.k_core(amazon.read_reviews(tmp_path / "r.csv", amazon.EDITIONS["2014"]), 1)
    told = {record.getMessage().partition(": ")[2]: record.levelname for record in caplog.records}
    assert told["repeated ratings of an item by a user: 2 of 4 rows dropped (50.0 %)"] == "WARNING"
    assert told["0 of 2 rows dropped (0.0 %)"] == "INFO"


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
    assert list(kept.itertuples(index=False, name=None)) == [("u1", "i1"), ("u1", "i2"), ("u2", "i1"), ("u2", "i2")]
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
