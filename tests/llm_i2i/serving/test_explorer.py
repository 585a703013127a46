"""The page at /: what is served, and a person's way through it in a real Chromium."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pandas as pd
import pytest
import uvicorn

from llm_i2i.schema import FUSED, INDEX, ITEMS, write_table
from llm_i2i.serving import explorer
from llm_i2i.serving.app import Settings, create_app
from llm_i2i.serving.build import Source, build
from tests.llm_i2i.serving.conftest import Shop
from tests.llm_i2i.serving.test_server import free_port

PAGE = Path(explorer.__file__).parent / "page"
TITLES = {"a": "Wooden train", "b": "Train track", "c": "Station", "d": "Tunnel", "e": "Rare signal box", "f": "Doll"}
REAL = [("a", "b", 0.9, 1), ("a", "c", 0.8, 2), ("a", "d", 0.7, 3), ("b", "a", 0.9, 1)]
AUGMENTED = [("a", "b", 0.9, 1), ("a", "d", 0.85, 2), ("a", "e", 0.6, 3), ("b", "a", 0.9, 1), ("b", "c", 0.5, 2)]
TAKEN = [*[(user, item, "real") for user in "123" for item in "abd"], ("1", "e", "synthetic"), ("2", "e", "synthetic")]


@pytest.fixture
def client(open_shop):
    with open_shop.client() as client:
        yield client


def test_the_page_may_load_nothing_from_elsewhere(client) -> None:
    for path, (name, kind) in explorer.FILES.items():
        told = client.get(path)
        assert told.status_code == 200
        assert told.content == (PAGE / name).read_bytes()
        assert told.headers["content-type"].startswith(kind)
        policy = told.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
        assert "*" not in policy
        assert told.headers["x-content-type-options"] == "nosniff"
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", told.text)
    assert {path.name for path in PAGE.iterdir()} == {name for name, _ in explorer.FILES.values()}
    loaded = re.findall(r'(?:src|href)="([\w.]+)"', client.get("/").text)
    assert {f"/{name}" for name in loaded} == set(explorer.FILES) - {"/"}


def test_the_page_asks_for_no_key_and_is_no_part_of_the_api(open_shop) -> None:
    with open_shop.client(api_key="secret") as client:
        assert client.get("/").status_code == 200
        assert client.get("/v1/index").status_code == 401
        assert not set(explorer.FILES) & set(client.get("/openapi.json").json()["paths"])


def a_railway(root: Path) -> Settings:
    """Two arms over six items, real and augmented; e is a tail item that only synthetic pairs lead to."""
    shop = Shop(root)
    table = {"item_id": list(TITLES), "title": TITLES.values(), "text": TITLES.values(), "n_train": [9, 8, 5, 4, 1, 7]}
    buckets = ["head", "head", "mid", "mid", "tail", "head"]
    write_table(pd.DataFrame(table).assign(bucket=buckets, is_long_tail=False, category="Rail"), shop.catalogue, ITEMS)
    fused = pd.DataFrame(TAKEN, columns=["user_id", "item_id", "source"]).assign(weight=1.0)
    write_table(fused, root / "fused" / "llm_i2i.parquet", FUSED)
    stores = {}
    for arm, rows in {"llm_i2i": AUGMENTED, "real": REAL}.items():
        shop.write_index(pd.DataFrame(rows, columns=list(INDEX)).astype(INDEX), arm)
    for arm in ("llm_i2i", "real"):
        stores[arm] = str(root / "store" / arm)
        build(Source(str(root / "i2i" / f"swing-{arm}"), "p", str(root), 90.0), Path(stores[arm]))
    (root / "events").mkdir()
    return Settings(stores=stores, shares={"llm_i2i": 1.0, "real": 0.0}, events=str(root / "events"))


@pytest.fixture(scope="module")
def railway(tmp_path_factory) -> Settings:
    return a_railway(tmp_path_factory.mktemp("railway"))


class Served:
    """An application that answers on loopback while the context lasts."""

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        self._server = uvicorn.Server(uvicorn.Config(create_app(settings), port=self.port, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.05)
        return f"http://127.0.0.1:{self.port}/"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def address(railway) -> Iterator[str]:
    with Served(railway) as address:
        yield address


def rows(page, arm: str) -> list[tuple[str, str]]:
    """Title and mark of each row of an arm's list."""
    found = page.locator(f'section[data-arm="{arm}"] ol > li')
    return [
        (row.locator("button.title").inner_text(), row.locator(".row > .badge").inner_text().split("\n")[0])
        for row in found.all()
    ]


@pytest.mark.slow
def test_from_a_search_by_keyboard_to_what_changed_and_why(visit, address) -> None:
    page = visit(address)
    page.get_by_label("Search items by title").press_sequentially("train")
    page.get_by_role("heading", name="2 items found").wait_for()
    assert page.get_by_role("status").inner_text() == "2 items found for train."
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Wooden train"  # the more popular one
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Wooden train").wait_for()
    page.wait_for_function("document.activeElement.id === 'result-heading'")
    assert rows(page, "real") == [("Train track", "stays"), ("Station", "gone"), ("Tunnel", "now 2")]
    assert rows(page, "llm_i2i") == [("Train track", "="), ("Tunnel", "↑ was 3"), ("Rare signal box", "new")]
    assert page.get_by_label("What changed").locator(".badge").all_inner_texts() == [
        "1 new, through synthetic pairs alone", "1 moved up", "1 left the list", "tail items: 0 before, 1 after",
    ]  # fmt: skip
    assert page.locator("#lines path").evaluate_all("found => found.map(path => path.getAttribute('class'))") == [
        "same", "up",
    ]  # fmt: skip
    tails = page.locator('section[data-arm="llm_i2i"] li', has=page.locator(".badge.tail"))
    assert tails.locator("button.title").all_inner_texts() == ["Rare signal box"]
    ask = page.get_by_role("button", name="why? Rare signal box")
    assert ask.get_attribute("aria-expanded") == "false"
    ask.focus()
    page.keyboard.press("Enter")
    assert ask.get_attribute("aria-expanded") == "true"
    assert tails.locator(".why").inner_text() == (
        "No user took both, 2 have both by synthetic pairs. "
        "Not among its neighbours with real interactions alone: synthetic pairs brought it here."
    )
    page.locator('section[data-arm="llm_i2i"]').get_by_role("button", name="why? Tunnel").click()
    told = page.locator('section[data-arm="llm_i2i"] .why:visible').first.inner_text()
    assert told == "3 users took both. With real interactions alone: rank 3, score 0.700; here rank 2, score 0.850."


@pytest.mark.slow
def test_a_basket_is_filled_answered_as_the_service_does_and_emptied(visit, address) -> None:
    page = visit(f"{address}?item=a")
    augmented = page.locator('section[data-arm="llm_i2i"]')
    add = augmented.get_by_role("button", name="Rare signal box in the basket")
    add.click()
    assert add.get_attribute("aria-pressed") == "true"
    assert page.get_by_role("status").inner_text() == "Rare signal box put into the basket."
    augmented.get_by_role("button", name="Train track in the basket").click()
    page.get_by_role("button", name="Recommend for the basket").click()
    page.get_by_role("heading", name="For the basket of 2 items").wait_for()
    for arm in ("real", "llm_i2i"):
        answer = httpx2.post(f"{address}v1/recommend", json={"history": ["e", "b"], "k": 10, "arm": arm}).json()
        titles = page.locator(f'section[data-arm="{arm}"] ol > li button.title').all_inner_texts()
        assert titles == [TITLES[item["item_id"]] for item in answer["items"]]
        assert len(titles) == 4
    page.reload()  # the address holds all of it
    page.get_by_role("heading", name="For the basket of 2 items").wait_for()
    page.get_by_role("button", name="Take Train track out").click()
    page.get_by_role("heading", name="For the basket of 1 item").wait_for()
    page.get_by_role("button", name="Empty it").click()
    page.get_by_role("heading", name="The basket is empty").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Wooden train").wait_for()


@pytest.mark.slow
def test_one_arm_is_one_column_which_still_tells_what_moved(visit, railway) -> None:
    alone = Settings(stores={"llm_i2i": railway.stores["llm_i2i"]}, shares={"llm_i2i": 1.0}, events=railway.events)
    with Served(alone) as address:
        page = visit(f"{address}?item=a")
        page.get_by_role("heading", name="Wooden train").wait_for()
        assert page.locator("#columns section").count() == 1
        assert rows(page, "llm_i2i") == [("Train track", "="), ("Tunnel", "↑ was 3"), ("Rare signal box", "new")]


@pytest.mark.slow
def test_a_key_is_asked_for_and_kept_nowhere(visit, railway) -> None:
    with Served(Settings(railway.stores, railway.shares, railway.events, api_key="secret")) as address:
        page = visit(f"{address}?item=a")
        field = page.get_by_role("textbox", name="API key")
        field.fill("guess")
        page.keyboard.press("Enter")
        page.get_by_text("This key is wrong.").wait_for()
        field.fill("secret")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Wooden train").wait_for()
        assert not page.get_by_role("dialog").is_visible()
        kept = page.evaluate("[document.cookie, localStorage.length, sessionStorage.length, location.href]")
        assert kept == ["", 0, 0, f"{address}?item=a"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_can_be_used_by_everyone(visit, barriers, address, scheme, width) -> None:
    page = visit(f"{address}?item=a&basket=e", viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.get_by_role("button", name="why? Rare signal box").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert barriers(page) == []
