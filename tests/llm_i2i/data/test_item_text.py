import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.item_text import one_line, unique_texts
from tests.llm_i2i.data.tables import raw_items


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\t b\r\nc\x00d ", "a b c d"),
        ("e\u0301", "é"),
        ("a\u2028b\u00a0c\u202ed\ufeff", "a b cd"),
        ("\u200bza\xadb\u2060c\ufe0f\U000e0041\u3164", "zabc"),
        ("cute \ud83d bear\u2800", "cute bear"),
        ("e\u034f\u0301", "é"),
        ("\n", ""),
        ("x" * 199 + " yz", "x" * 199),
        ("x" * 300, "x" * 200),
    ],
)
def test_one_line(raw: str, clean: str) -> None:
    assert one_line(raw) == clean


def texts(*titles: str, **columns: list[str]) -> list[str]:
    item_ids = [f"i{n}" for n in range(len(titles))]
    return unique_texts(raw_items(item_id=item_ids, title=list(titles), **columns))


def test_fall_back_of_items_without_a_title() -> None:
    found = texts("", "\t", " ", "T", category=["Toys", "", "", "c"], brand=["B", "Lego", "", "b"])
    assert found == ["Toys", "Lego", "item i2", "T"]


def test_equal_titles_are_told_apart() -> None:
    assert texts("X", "X", "Y", year=["1990", "1995", "2000"]) == ["X (1990)", "X (1995)", "Y"]
    assert texts("X", "X", year=["1990", ""]) == ["X (1990)", "X"]
    assert texts("X", "X", year=["1990", "1990"], category=["a", "b"]) == ["X (a)", "X (b)"]
    assert texts("X", "X", year=["1990", "1990"]) == ["X [i0]", "X [i1]"]
    assert texts("X", "X", "X (1990)", year=["1990", "1991", ""])[1:] == ["X (1991)", "X (1990)"]
    assert texts("X", "X", "X [i0]") == ["X [i0] [i0]", "X [i1]", "X [i0]"]


def test_what_cannot_be_seen_tells_no_two_items_apart() -> None:
    assert texts("X", "X\u200d", "X\ufe0f") == ["X [i0]", "X [i1]", "X [i2]"]
    assert texts("\u200b", "\xad", category=["\u2060", "Toys"]) == ["item i0", "Toys"]


def test_long_titles_that_are_equal_after_the_cut() -> None:
    found = texts("x" * 200 + "a", "x" * 200 + "b")
    assert found == ["x" * 200 + " [i0]", "x" * 200 + " [i1]"]


WORDS = st.one_of(st.sampled_from(["", "X", "X (1)", "X [i0]", "X [i1] [i1]", "item i0", "\n"]), st.text(max_size=3))


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, st.sampled_from(["", "1", "2"]), st.sampled_from(["", "X", "c"])), min_size=1))
def test_unique_one_line_never_empty(rows: list[tuple[str, str, str]]) -> None:
    titles, years, categories = (list(column) for column in zip(*rows, strict=True))
    found = texts(*titles, year=years, category=categories)
    assert len(set(found)) == len(rows)
    for text in found:
        assert text.strip() == text != ""
        assert text.splitlines() == [text]
        assert unicodedata.is_normalized("NFC", text)
    assert found == texts(*titles, year=years, category=categories)
