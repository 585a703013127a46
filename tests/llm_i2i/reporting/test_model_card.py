"""Model cards say what was promoted, with what figures, and on what data."""

import yaml

from llm_i2i.params import ModelCardParams
from llm_i2i.reporting.model_card import Promotion, adapter_card, index_card

PROMOTION = Promotion(
    version="v1.0.0",
    gate={"commit": "c0ffee", "verdict": "better", "champion": {"name": "v0.9.0"}},
    data={"md5": "abc.dir"},
    base_model={"id": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "r1", "licence": "Apache-2.0"},
    about=ModelCardParams(data="Our <shop> & co", data_licence="internal"),
)
MANIFEST = {"model": "swing", "arm": "llm_i2i", "rows": 12345, "items_with_neighbours": 678, "fused_sha256": "f",
            "sha256": "s", "content_sha256": "t", "params": {"top_k": 100}}  # fmt: skip
METRICS = {
    "overall": {"recall@10": 0.1, "ndcg@10": 0.05},
    "n_users": 1200,
    "buckets": {"head": {"recall@10": 0.2, "n_users": 3}, "tail": {"n_users": 0}},
    "protocol_hash": "p",
    "intervals": {"overall": {"recall@10": [0.05, 0.15]}},
}


def test_the_index_card_holds_figures_with_intervals_and_its_origin() -> None:
    text = index_card("i2i-index", PROMOTION, manifest=MANIFEST, metrics=METRICS)
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == PROMOTION.base_model["id"]
    assert "# i2i-index v1.0.0" in text
    assert "12,345 neighbours of 678 items" in text
    assert "| overall | 1,200 | 0.1000 [0.0500, 0.1500] | 0.0500 |" in text
    assert "| head | 3 | 0.2000 | – |" in text
    assert "| tail |" not in text
    assert "- gate: better, against v0.9.0" in text
    assert "- data, Our <shop> & co: internal" in text
    assert "## Limits" in text


def test_unknown_parts_are_called_so_and_an_index_of_real_data_has_no_base_model() -> None:
    bare = Promotion("v1", {"commit": "c", "verdict": "first champion"}, {}, {}, PROMOTION.about)
    text = index_card("x", bare, manifest=MANIFEST | {"arm": "real"}, metrics=METRICS)
    assert "base_model" not in text.split("---")[1]
    assert "no champion before it" in text
    assert "md5 `unknown`" in text


def test_the_adapter_card_warns_of_merging() -> None:
    text = adapter_card("generator", PROMOTION, purpose="Writes synthetic interactions")
    assert "Writes synthetic interactions. A LoRA adapter, to be kept unmerged" in text
    assert "revision r1, sha256 `unknown`" in text
    assert "Metrics on the test users" not in text
