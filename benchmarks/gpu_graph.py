"""The whole graph of stages on the device, in one process and without DVC: compact backbone, made-up interactions."""

import os
import shutil
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.gpu_context import ROOT, Context, Result
from llm_i2i.params import Params, load_params, read_profile
from llm_i2i.params.reading import overlay
from llm_i2i.params.rendering import HEAD, yaml_text
from llm_i2i.stages import STAGES
from pipelines.stages import stage_pipeline

# What makes the run short; everything else is profile compact.
SMALL = {
    "validate": {"min_interactions": 100, "min_users": 10, "min_items": 10},
    "train_generator": {"epochs": 2.0, "max_windows": 60, "early_stopping": {"every": 1.0, "patience": 1}},
    "train_discriminator": {"epochs": 1.0, "max_histories": 40},
    "controls": {"names": ["item_knn"]},
    "fuse": {"arms": ["real", "llm_i2i", "item_knn"]},
    "train_i2i": {"models": ["swing"]},
    "evaluate_generator": {"arms": ["llm_only"]},
    "report": {"bootstrap_resamples": 100},
}


def whole_graph(context: Context) -> Iterator[Result]:
    """Every stage once; seconds of those that run an LLM, and what device they say they used."""
    project = context.folder / "project"
    project.mkdir()
    shutil.copytree(ROOT / "profiles", project / "profiles")
    shutil.copy2(ROOT / "dvc.yaml", project)
    (project / "data").mkdir()
    _write_tables(project / "data", n_users=80 if context.small else 5000, n_items=60 if context.small else 3000)
    # The items' own words in place of a sentence encoder, which would be downloaded.
    changes = {"runtime": {"device": context.runtime.device.type}, "encode_text": {"source": "tfidf"}}
    changes |= SMALL if context.small else {}
    whole = overlay(read_profile("compact", ROOT), changes)
    (project / "params.yaml").write_text(yaml_text({"profile": "", **whole}, HEAD), encoding="utf-8")
    os.environ["LLM_I2I_ZENML"] = "off"
    with chdir(project):
        params = load_params()
        for stage in STAGES:
            _, seconds = context.seconds(partial(_run, stage, params))
            yield Result(f"compact graph: {stage}", seconds, "s")
        report = (project / "reports/report.html").is_file()
    yield Result("compact graph: report written", holds=report)


def _run(stage: str, params: Params) -> None:
    """All instances of a stage."""
    for matrix in _matrix(stage, params):
        stage_pipeline(stage)(**matrix)


def _matrix(stage: str, params: Params) -> list[dict[str, str]]:
    """Instances of a stage, as dvc.yaml has them."""
    pairs = [{"model": model, "arm": arm} for model in params.train_i2i.models for arm in params.fuse.arms]
    return {
        "controls": [{"name": name} for name in params.controls.names],
        "score": [{"source": source} for source in params.score.sources],
        "fuse": [{"arm": arm} for arm in params.fuse.arms],
        "train_i2i": pairs,
        "evaluate": pairs,
        "evaluate_generator": [{"arm": arm} for arm in params.evaluate_generator.arms],
    }.get(stage, [{}])


def _write_tables(folder: Path, *, n_users: int, n_items: int) -> None:
    """Interactions in which an item is often followed by its neighbour, and titles of two words."""
    rng = np.random.default_rng(0)
    starts, length = rng.integers(n_items, size=n_users), 12
    steps = rng.choice([1, 2, 7], size=(n_users, length), p=[0.6, 0.3, 0.1])
    items = (starts[:, None] + np.cumsum(steps, axis=1)) % n_items
    users = np.repeat(np.arange(n_users), length)
    table = pd.DataFrame({"user_id": users, "item_id": items.ravel(), "timestamp": np.tile(np.arange(length), n_users)})
    table.to_csv(folder / "interactions.csv", index=False)
    words = [f"kind{n % 7} thing{n}" for n in range(n_items)]
    pd.DataFrame({"item_id": np.arange(n_items), "title": words}).to_csv(folder / "items.csv", index=False)
