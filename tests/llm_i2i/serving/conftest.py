"""A shop of 400 items, the last 20 of them new: a title, no interactions, no neighbours in the index."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from llm_i2i.files import file_sha256, write_json
from llm_i2i.i2i.index import index_sha256
from llm_i2i.schema import INDEX, ITEMS, write_table
from llm_i2i.serving.app import Settings, create_app
from llm_i2i.serving.build import Source, build
from llm_i2i.serving.flat import FlatIndex

N_ITEMS, N_NEW = 400, 20
NAMES = [f"i/{n:03d} é" for n in range(N_ITEMS)]  # ids as shops have them
CATEGORIES = ["blocks", "dolls", "trains", "puzzles"]


@cache
def an_index(seed: int = 0) -> pd.DataFrame:
    """Random neighbours with few different scores: full of ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(N_ITEMS - N_NEW):
        others = rng.choice(np.delete(np.arange(N_ITEMS - N_NEW), item), size=12, replace=False)
        scores = rng.integers(1, 5, size=12) / 7
        for rank, at in enumerate(np.lexsort((others, -scores)), start=1):
            rows.append((NAMES[item], NAMES[others[at]], scores[at], rank))
    return pd.DataFrame(rows, columns=list(INDEX)).astype(INDEX)


@dataclass
class Shop:
    """Files of a run, as the stages leave them, and the store of the service."""

    root: Path
    redis: str = ""
    arm: str = "real"
    half_life: float = 90.0

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def folder(self) -> Path:
        return self.root / "i2i" / f"swing-{self.arm}"

    @property
    def source(self) -> Source:
        return Source(self.redis or str(self.folder), "p", str(self.root), self.half_life)

    @property
    def catalogue(self) -> Path:
        return self.root / "items" / "items.parquet"

    @property
    def vectors(self) -> Path:
        return self.root / "text" / "vectors.npy"

    def write_index(self, index: pd.DataFrame, arm: str = "real", **query: float) -> None:
        folder, fused = self.root / "i2i" / f"swing-{arm}", self.root / "fused" / f"{arm}.parquet"
        write_table(index, folder / "index.parquet", INDEX)
        facts = {"model": "swing", "arm": arm, "params": {"swing": query}, "content_sha256": index_sha256(index)}
        write_json(facts | ({"fused_sha256": file_sha256(fused)} if fused.exists() else {}), folder / "manifest.json")

    def build(self) -> FlatIndex:
        build(self.source, self.store)
        return self.opened()

    def opened(self) -> FlatIndex:
        state = json.loads((self.store / "state.json").read_text(encoding="utf-8"))
        return FlatIndex(self.store / "versions" / state["version"])

    def client(self, **options) -> TestClient:
        events = self.root / "events"
        events.mkdir(exist_ok=True)
        settings = {"stores": {"real": str(self.store)}, "shares": {"real": 1.0}, "events": str(events)} | options
        return TestClient(create_app(Settings(**settings)), raise_server_exceptions=False)


def ready(client) -> dict:
    """What /readyz says of the first arm, after a look for other versions."""
    client.app.state.arms.refresh()
    told = client.get("/readyz").json()
    return {"ready": told["ready"], **told["arms"][0]}


def a_shop(folder: Path) -> Shop:
    """A shop with an index and vectors in which items of one category lie together."""
    rng = np.random.default_rng(1)
    category = np.arange(N_ITEMS) % len(CATEGORIES)
    table = {
        "item_id": NAMES,
        "title": NAMES,
        "text": NAMES,
        "n_train": np.where(np.arange(N_ITEMS) < N_ITEMS - N_NEW, 1 + np.arange(N_ITEMS) % 50, 0),
        "bucket": "mid",
        "is_long_tail": False,
        "category": [CATEGORIES[n] for n in category],
    }
    made = Shop(folder)
    write_table(pd.DataFrame(table), made.catalogue, ITEMS)
    vectors = np.eye(8)[category] + 0.1 * rng.random((N_ITEMS, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made.vectors.parent.mkdir()
    np.save(made.vectors, vectors.astype(np.float32))
    made.write_index(an_index())
    return made


@pytest.fixture
def shop(tmp_path) -> Shop:
    """A shop of one's own."""
    return a_shop(tmp_path)


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory) -> Shop:
    """A shop whose version is made, for tests that only read."""
    made = a_shop(tmp_path_factory.mktemp("shop"))
    made.build()
    return made
