"""A small project up to its two trained compact models."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import made_once

PARAMS = """
profile: compact
seed: 1
runtime: {device: cpu, precision: fp32, threads: 1, processes: PROCESSES}
encode_text: {source: tfidf}
train_generator: {epochs: 1, early_stopping: {patience: 0}}
train_discriminator: {epochs: 1}
synthesize: {items_per_user: 5, batch_users: 16}
evaluate_generator: {batch_users: 16}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 150 users up to its two trained compact models, made by its own stages."""
    with made_once(tmp_path_factory, "trained") as (folder, fill):
        if fill:
            train(folder)
    return folder


def train(folder: Path) -> None:
    """Write data, and run the stages up to the trainings."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    (folder / "params.yaml").write_text(PARAMS.replace("PROCESSES", "1"), encoding="utf-8")
    rng = np.random.default_rng(0)
    rows = [(f"u{user:03d}", f"i{item:02d}", step) for user in range(150)
            for step, item in enumerate(rng.choice(60, size=int(rng.integers(4, 12)), replace=False))]  # fmt: skip
    (folder / "data").mkdir()
    columns = ["user_id", "item_id", "timestamp"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "data/interactions.csv", index=False)
    items = pd.DataFrame({"item_id": [f"i{n:02d}" for n in range(60)], "title": [f"Red toy {n}" for n in range(60)]})
    items.to_csv(folder / "data/items.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (
            "split",
            "tag",
            "encode_text",
            "identify",
            "base_model",
            "train_generator",
            "train_discriminator",
        ):
            getattr(importlib.import_module(f"steps.{stage}"), stage)()
