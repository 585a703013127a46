import numpy as np
import pandas as pd
import pytest

from llm_i2i import cli
from llm_i2i.schema import FUSED, INDEX, ITEMS, write_table
from llm_i2i.serving.chain import answer
from llm_i2i.serving.messages import Query
from tests.llm_i2i.serving.conftest import Shop

# Who took what: users 1, 2 and 3 took a and b really, 4 took a really and b synthetically, 5 both ways b.
TAKEN = [
    *[(user, item, "real") for user in "123" for item in "ab"],
    ("4", "a", "real"), ("4", "b", "synthetic"),
    ("5", "a", "real"), ("5", "b", "real"), ("5", "b", "synthetic"),
    ("6", "c", "synthetic"), ("6", "b", "synthetic"), ("7", "c", "real"),
]  # fmt: skip


def edges(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(INDEX)).astype(INDEX)


@pytest.fixture
def small(tmp_path) -> Shop:
    """Items a to e; arm real knows b as a's second neighbour, and nothing of c."""
    shop = Shop(tmp_path, arm="llm_i2i")
    table = {"item_id": list("abcde"), "title": [*"ABCD", ""], "text": list("abcde"), "n_train": [5, 4, 2, 0, 0]}
    write_table(pd.DataFrame(table).assign(bucket="mid", is_long_tail=False), shop.catalogue, ITEMS)
    fused = pd.DataFrame(TAKEN, columns=["user_id", "item_id", "source"]).assign(weight=1.0)
    write_table(fused, tmp_path / "fused" / "llm_i2i.parquet", FUSED)
    shop.vectors.parent.mkdir()
    np.save(shop.vectors, np.array([[1, 0], [0, 1], [0, 1], [0.6, 0.8], [0, 0]], np.float32))
    query = {"last_m": 2, "decay": 0.5}
    shop.write_index(edges(("a", "c", 0.5, 1), ("a", "b", 0.25, 2)), **query)
    shop.write_index(edges(("a", "b", 0.75, 1), ("c", "b", 0.5, 1)), arm="llm_i2i", **query)
    return shop


def why(shop, **query):
    (first, *_) = answer(shop.build(), Query(**query, explain=True))["items"]
    return first["item_id"], first["why"]


def test_what_each_item_of_the_history_adds(small):
    item, told = why(small, history=["a", "c"])
    assert item == "b"
    assert told == [
        {
            "item_id": "c", "title": "C", "contribution": 0.5, "score": 0.5, "rank": 1,
            "users": 0, "synthetic_users": 1, "real_score": None, "real_rank": None,
        },
        {
            "item_id": "a", "title": "A", "contribution": 0.375, "score": 0.75, "rank": 1,
            "users": 4, "synthetic_users": 1, "real_score": 0.25, "real_rank": 2,
        },
    ]  # fmt: skip


def test_the_contributions_are_the_score(small):
    (first, *_) = answer(small.build(), Query(history=["a", "unheard of", "a", "c", "a"], explain=True))["items"]
    assert first["score"] == sum(told["contribution"] for told in first["why"]) == 0.75 + 0.25
    assert [told["item_id"] for told in first["why"]] == ["a", "c"]  # last_m: the first two places are too old


def test_an_edge_by_text_and_a_popular_item(small):
    told = answer(small.build(), Query(history=["d"], explain=True))["items"]
    assert [item["source"] for item in told] == ["text"] * 3 + ["popularity"]
    assert told[0]["item_id"] == "b"
    assert told[0]["why"][0] | {"score": 0.8, "contribution": 0.8} == {
        "item_id": "d", "title": "D", "contribution": 0.8, "score": 0.8, "rank": 1,
        "users": 0, "synthetic_users": 0, "real_score": None, "real_rank": None,
    }  # fmt: skip
    assert told[-1] == {"item_id": "e", "title": None, "score": 0.0, "source": "popularity", "why": []}


def test_arm_real_owes_nothing(small):
    small.arm = "real"
    item, told = why(small, history=["a"])
    assert item == "c"
    assert (told[0]["real_score"], told[0]["real_rank"]) == (0.5, 1)
    assert told[0]["users"] is None  # its table is not there
    assert small.opened().explains == ["real"]


@pytest.mark.parametrize(
    ("damage", "told", "left"),
    [
        (lambda shop: (shop.root / "fused/llm_i2i.parquet").unlink(), "llm_i2i.parquet: no such file", ["real"]),
        (lambda shop: write_table(pd.DataFrame(TAKEN[1:], columns=["user_id", "item_id", "source"]).assign(weight=1.0),
                                  shop.root / "fused/llm_i2i.parquet", FUSED), "not what the index was", ["real"]),
        (lambda shop: (shop.folder.parent / "swing-real/manifest.json").unlink(), "no such file", ["users"]),
        (lambda shop: shop.write_index(edges(("a", "c", 0.5, 1)), arm="real", decay=1), "other params", ["users"]),
    ],
)  # fmt: skip
def test_without_its_tables_an_explanation_tells_less(small, damage, told, left, caplog):
    before = small.source.stamp()
    assert small.build().explains == ["users", "real"]
    damage(small)
    assert small.source.stamp() != before
    assert small.build().explains == left
    assert told in caplog.text
    unknown = ("users", "synthetic_users") if left == ["real"] else ("real_score", "real_rank")
    _, told = why(small, history=["a"])
    assert {name for name, value in told[0].items() if value is None} == set(unknown)


def test_over_http(small):
    small.build()
    with small.client() as client:
        asked = {"history": ["a"], "explain": True, "k": 1}
        told = client.post("/v1/recommend", json=asked).json()["items"]
        assert told == client.get("/v1/items/a/similar", params={"k": 1, "explain": True}).json()["items"]
        assert told[0]["why"][0]["synthetic_users"] == 1
        assert "why" not in client.post("/v1/recommend", json={"history": ["a"]}).json()["items"][0]
        assert client.get("/v1/index").json()["arms"][0]["explains"] == ["users", "real"]


def test_offline(small, capsys):
    options = ["--index", str(small.folder), "--artifacts", str(small.root)]
    assert cli.main(["explain", "--items", "a,c", "--top-k", "1", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1\t0.875\tindex\tb\tB",
        "\t+0.5\tc\tC\t0.5 #1\t0 users, 1 synthetic\tnot in arm real",
        "\t+0.375\ta\tA\t0.75 #1\t4 users, 1 synthetic\treal 0.25 #2",
    ]
    for wrong in (["--items", "x"], ["--items", "a", "--top-k", "0"]):
        assert cli.main(["explain", *wrong, *options]) == 2
        assert capsys.readouterr().err.startswith(f"error: {wrong[-2]}: ")
