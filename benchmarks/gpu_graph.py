"""The whole graph of stages on the device, in one process and without DVC: compact backbone, made-up interactions."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.gpu_context import ROOT, Context, Result
from llm_i2i.files import read_json, write_json
from llm_i2i.params import Params, read_profile
from llm_i2i.params.reading import overlay
from llm_i2i.params.rendering import HEAD, yaml_text
from llm_i2i.stages import STAGES
from pipelines.stages import stage_pipeline

DONE = Path("done.json")  # in a project: the parameters that its artifacts were made with
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
    """Every stage once; what the graph leaves is the project of `an_experiment`."""
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
    os.environ["LLM_I2I_ZENML"] = "off"
    with chdir(project):
        for stage, seconds in run_point(whole, ["report"]):
            yield Result(f"compact graph: {stage}", seconds, "s")
        report = Path("reports/report.html").is_file()
    yield Result("compact graph: report written", holds=report)


def depends_on() -> dict[str, set[str]]:
    """Stages that each stage reads from, by dvc.yaml."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    bodies = {name: stage.get("do", stage) for name, stage in stages.items()}
    made_by = {Path(str(out).split("${")[0]): name for name, body in bodies.items() for out in body.get("outs", [])}
    return {
        name: {
            producer
            for dep in body.get("deps", [])
            for out, producer in made_by.items()
            if out in [Path(dep.split("${")[0]), *Path(dep).parents] or Path(dep) in out.parents
        }
        - {name}
        for name, body in bodies.items()
    }


def stages_to_run(before: dict[str, Any], params: dict[str, Any], until: list[str]) -> list[str]:
    """What a change of parameters makes stale, in order, as far as `until` needs it."""
    needs, stale = depends_on(), set()
    for stage in STAGES:
        if before.get(stage) != params[stage] or needs[stage] & stale:
            stale.add(stage)
    wanted, new = set(until), True
    while new:
        new = set().union(*(needs[stage] for stage in wanted)) - wanted
        wanted |= new
    return [stage for stage in STAGES if stage in stale & wanted]


def run_point(params: dict[str, Any], until: list[str]) -> Iterator[tuple[str, float]]:
    """Run what is stale in the working folder; yields each stage and its seconds when it is done."""
    checked = Params.model_validate(params)
    before = read_json(DONE) if DONE.is_file() else {}
    Path("params.yaml").write_text(yaml_text({**params, "profile": ""}, HEAD), encoding="utf-8")
    for stage in stages_to_run(before, params, until):
        began = time.perf_counter()
        for keys in matrix_of(stage, checked):
            stage_pipeline(stage)(**keys)
        before[stage] = params[stage]
        write_json(before, DONE)
        yield stage, time.perf_counter() - began


def matrix_of(stage: str, params: Params) -> list[dict[str, str]]:
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
