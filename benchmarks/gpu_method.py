"""A declared experiment in one process and without DVC, for a GPU machine that has only Python.

    python -m benchmarks.gpu_method FOLDER --experiment NAME [--seed 1] [--set KEY=VALUE ...] [--until STAGE] --out DIR

FOLDER is a project folder (dvc.yaml, profiles/, data/); what it already has under artifacts/ is taken as it is, so each
seed wants a folder of its own. Of every point the stages run whose section of params.yaml differs from the point
before, and all that depend on them. DIR gets what `python -m pipelines sweep` keeps of a point, as each is done;
`--collect` turns the points of all seeds into the experiment's results. `--random-weights` gives the base model fresh
weights, to see what pretraining adds.
"""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu_context import Context, Result
from benchmarks.gpu_graph import run_point
from llm_i2i.evaluation.experiments import Experiment, Point, load_experiment, resolve
from llm_i2i.files import read_json, write_json
from llm_i2i.params import Params, read_profile
from llm_i2i.reporting.experiments import PER_USER_COLUMNS, evaluate_experiment
from llm_i2i.schema import GENERATOR, write_table
from llm_i2i.stages import STAGES
from pipelines.lab.sweep import collect, read_point


class Folder:
    """A project folder, read as `llm_i2i.dvc.Revision` reads a commit."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def output(self, path: str) -> Path:
        """Where a stage's output lies."""
        return self.root / path

    def json(self, path: str) -> dict[str, Any]:
        """Content of a JSON file."""
        content: dict[str, Any] = read_json(self.root / path)
        return content


def draw_weights(folder: Path, seed: int) -> None:
    """Give a base model the weights that a fresh model of its shape has."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    fresh.save_pretrained(folder)


def run(experiment: Experiment, points: list[Point], options: argparse.Namespace) -> None:
    """Run the points in the folder and keep what each measured."""
    out, until = options.out.resolve(), list(options.until)
    out.mkdir(parents=True, exist_ok=True)
    with chdir(options.folder):
        base = read_profile(experiment.profile)
        for point in points:
            params = resolve(base, {**point.overrides, **dict(options.set)})
            seconds = {}
            for stage, taken in run_point(params, until):
                seconds[stage] = round(taken, 1)
                if stage == "base_model" and options.random_weights:
                    draw_weights(Path("artifacts/base_model"), point.seed)
            name = f"{point.label.replace(' ', '-')}-{point.seed}"
            record: dict[str, Any] = {
                "label": point.label, "overrides": dict(point.overrides), "changed": dict(point.changed),
                "set": dict(options.set), "seed": point.seed, "seconds": seconds, "error": "",
            }  # fmt: skip
            stopped = Path("artifacts/generator/early_stopping.csv")
            record["early_stopping"] = stopped.read_text(encoding="utf-8").split() if stopped.is_file() else []
            record["runtime"] = {path.stem: read_json(path) for path in sorted(Path("reports/runtime").glob("*.json"))}
            if "evaluate" in until:
                per_user = collect(Folder(Path()), params, record, generator_alone=experiment.generator_alone)
                write_table(per_user, out / f"{name}.parquet", PER_USER_COLUMNS)
            elif "evaluate_generator" in until:
                record["alone"] = read_json(Path("reports/metrics/generator-llm_only.json"))
            write_json(record, out / f"{name}.json")
            print(name, seconds, flush=True)


def results_of(experiment: Experiment, folders: list[Path], root: Path) -> dict[str, Any]:
    """The experiment's results from the points of all seeds; `root`: the project folder."""
    paths = [path for folder in folders for path in folder.glob("*.json") if path.with_suffix(".parquet").is_file()]
    of_point = {(record["label"], record["seed"]): path for path in paths for record in [read_json(path)]}
    points = experiment.points(seeds=sorted({seed for _, seed in of_point}))  # in the order of the experiment
    found = [read_point(of_point[key], point) for point in points if (key := (point.label, point.seed)) in of_point]
    defaults = Params.model_validate(read_profile(experiment.profile, root))
    return evaluate_experiment(experiment, found, resamples=defaults.report.bootstrap_resamples, seed=defaults.seed)


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)


def an_experiment(context: Context) -> Iterator[Result]:
    """Two points on the project of `whole_graph`, with and without the tail loss, run and collected."""
    declared = {
        "name": "tail_loss", "question": "Does an experiment run without DVC?", "profile": "here",
        "variants": {"with": {}, "without": {"train_generator.tail_weight": 1.0}}, "generator_alone": True,
    }  # fmt: skip
    folder, found = context.folder, context.folder / "results.json"
    shutil.copy2(folder / "project/params.yaml", folder / "project/profiles/here.yaml")
    (folder / "tail_loss.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    where = [str(folder / "project"), "--experiment", str(folder / "tail_loss.yaml"), "--seed", "42"]
    main([*where, "--out", str(folder / "points")])
    seconds = {path.stem: sum(read_json(path)["seconds"].values()) for path in (folder / "points").glob("*.json")}
    for name, taken in sorted(seconds.items()):
        yield Result(f"experiment, point {name}", taken, "s")
    main([*where, "--collect", str(folder / "points"), "--out", str(found)])
    alone = {row["point"] for row in read_json(found)["rows"] if row["model"] == GENERATOR}
    yield Result("experiment: points collected", len(alone), "points", alone == {"with", "without"})


def main(arguments: list[str] | None = None) -> int:
    """Run or collect; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--experiment", type=Path, required=True, help="file of experiments/")
    parser.add_argument("--point", action="append", help="run only these points")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", type=_setting, action="append", default=[], help="KEY=VALUE, for every point")
    parser.add_argument("--until", nargs="+", choices=STAGES, default=["evaluate", "evaluate_generator"])
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--collect", type=Path, nargs="+", help="folders of points")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ["LLM_I2I_ZENML"] = "off"
    experiment = load_experiment(options.experiment)
    if options.collect:
        write_json(results_of(experiment, options.collect, options.folder), options.out)
        return 0
    points = [
        point for point in experiment.points(seeds=[options.seed]) if point.label in (options.point or [point.label])
    ]
    run(experiment, points, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
