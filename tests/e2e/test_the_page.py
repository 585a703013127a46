"""The report of a real run in a real Chromium: at every width, light and dark, by pointer, by keys and on paper."""

import re
from itertools import pairwise

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

A4 = {"width": 703, "height": 1000}  # what its margins leave, in CSS pixels


@pytest.fixture(scope="module")
def address(finished) -> str:
    return (finished.root / "reports" / "report.html").as_uri()


# Colours differ by scheme, what is there and where by width: axe-core takes seconds, so not every pair of them.
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (900, "light"), (1440, "dark")])
def test_everyone_can_read_it(visit, barriers, address, width, scheme) -> None:
    page = visit(address, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth") == width
    assert barriers(page) == []
    levels = [int(level) for level in page.locator("h1, h2, h3").evaluate_all("all => all.map(h => h.tagName[1])")]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1


def test_the_contents_stay_beside_the_text_and_fold_on_a_phone(visit, address) -> None:
    page = visit(address, viewport={"width": 1440, "height": 800})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    contents = page.get_by_role("navigation", name="Contents")
    for _ in range(2):
        assert contents.get_by_role("link", name="Verdict").is_visible()
        contents.get_by_role("link", name="Data").click()  # and once more from there
    page.wait_for_function("document.querySelector('nav [aria-current]').textContent === 'Data'")
    box = contents.bounding_box()
    assert box["x"] >= 0
    assert 0 <= box["y"] < 800

    page.set_viewport_size({"width": 360, "height": 700})
    link = contents.get_by_role("link", name="What was added")
    link.wait_for(state="hidden")
    contents.get_by_text("Contents").click()
    link.click()
    link.wait_for(state="hidden")
    heading = page.get_by_role("heading", name="What was added").bounding_box()["y"]
    bar = contents.bounding_box()
    assert bar["y"] + bar["height"] <= heading < 350, "the bar does not hide where the link led"


def test_columns_sort_as_numbers_by_click_and_by_key_within_their_groups(visit, address) -> None:
    page = visit(address)
    table = page.locator("table", has_text="Rows by arm and source")
    head, button = table.locator("th", has_text="Kept").first, table.get_by_role("button", name="Kept", exact=True)

    def column() -> list[int]:
        return [int(text.replace(",", "")) for text in table.locator("tbody td:nth-child(4) bdi").all_inner_texts()]

    before = column()
    assert max(before) >= 1000 > min(before), "commas and different lengths, which text would order otherwise"
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column() == sorted(before, reverse=True)
    assert page.get_by_role("status").inner_text() == "Sorted by Kept, descending."
    page.keyboard.press("Enter")  # the button has the focus
    assert head.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(before)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") is None
    assert column() == before

    table = page.locator("table", has_text="Cost of each stage")
    for _ in range(2):
        table.get_by_role("button", name="Minutes").click()
        assert table.locator("tbody tr").last.inner_text().startswith("report\tthis page")
    table = page.locator("table", has_text="Test metrics by model and arm")
    groups = table.locator("tbody").evaluate_all("all => all.map(group => group.rows[0].className)")
    table.get_by_role("button", name="Recall@10").click()
    assert groups == ["group"] * len(groups)
    assert table.locator("tbody").evaluate_all("all => all.map(group => group.rows[0].className)") == groups


def test_a_plot_tells_its_values_under_the_pointer_and_by_arrow_keys(visit, address, finished) -> None:
    items = pd.read_parquet(finished.root / "artifacts" / "items" / "items.parquet")
    page = visit(address, viewport={"width": 1440, "height": 800})
    plot, tip = page.locator("svg", has=page.locator("#long-tail-title")), page.locator("#tip")
    assert tip.is_hidden()
    first, last = plot.locator("circle").first, plot.locator("circle").last
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2 + 3)
    told = tip.inner_text()
    assert re.fullmatch(rf".+: {items['n_train'].max():,}, head, no\. 1", told)
    assert items.loc[items["n_train"].idxmax(), "title"] in told
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    plot.locator("circle[tabindex='0']").focus()
    assert tip.inner_text() == told == first.get_attribute("aria-label")
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text() == last.get_attribute("aria-label")
    assert tip.inner_text().endswith(f"no. {len(items):,}")
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() == told
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_on_paper_it_is_light_and_nothing_is_cut_off(visit, address) -> None:
    page = visit(address, viewport=A4, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.get_by_role("navigation").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    widths = page.locator("table, figure").evaluate_all("all => all.map(part => part.getBoundingClientRect().right)")
    assert max(widths) <= A4["width"]


def test_without_script_it_reads_as_well(browser, address) -> None:
    page = browser.new_page(java_script_enabled=False, viewport={"width": 360, "height": 700})
    page.goto(address)
    assert page.get_by_role("navigation", name="Contents").get_by_role("link", name="Data").is_visible()
    assert page.locator("circle title").first.text_content()
    assert page.get_by_role("button").count() == 0
    page.close()
