"""Run a declared experiment: every point a `dvc exp run --temp` of its own, then the table, plots and text.

DVC decides what a point re-runs: a threshold sweep trains nothing. A point that is done is written to
reports/experiments/NAME/points/ and never run again while parameters, code and data stay; a sweep that was
killed resumes there, and DVC's run cache restores the stages that the killed point had finished.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from llm_i2i import schema
from llm_i2i.dvc import DVC, Revision, environment, experiment_ref
from llm_i2i.errors import LlmI2iError
from llm_i2i.evaluation.experiments import Experiment, Point, Value, check_points, digest, load_experiment, resolve
from llm_i2i.files import content_md5, read_json, write_json, write_text
from llm_i2i.params import Params, read_params, read_profile
from llm_i2i.params.reading import leaves, overlay, read_written
from llm_i2i.reporting.experiment_views import experiment_plots, experiment_table, rows_of, tell
from llm_i2i.reporting.experiments import PER_USER_COLUMNS, PointResult, evaluate_experiment
from llm_i2i.reporting.tables import escape_markdown, markdown_table
from llm_i2i.schema import write_frame
from pipelines import profile
from steps.paths import EXPERIMENTS, LOCKS

logger = logging.getLogger(__name__)

DECLARED = Path("experiments")
TARGETS = ("evaluate",)  # a point needs no report
# Keys that no stage up to evaluate reads; of the profile its values count, not its name.
AFTER = {"profile", "report", "gate", "monitor", "model_card"}
# What decides a result besides parameters; DVC looks closer at whatever differs here.
CODE = ("dvc.yaml", "data.dvc", "steps", "src/llm_i2i")
NOT_CODE = tuple(
    f"src/llm_i2i/{place}" for place in ("reporting/", "serving/", "monitoring/", "evaluation/experiments.py")
)
TRAININGS = ("train_generator", "train_discriminator")


def sweep(name: str, *, seeds: list[int] | None = None) -> None:
    """Run what is not yet run of an experiment, then write its results.

    Args:
        name: File of experiments/, without suffix.
        seeds: Instead of the experiment's own.

    Raises:
        ParamsError: The experiment or one of its points breaks a rule; nothing has run then.
        LlmI2iError: No point could be run.
    """
    experiment = load_experiment(DECLARED / f"{name}.yaml")
    base = _base_params(experiment)
    points = experiment.points(seeds=seeds or experiment.seeds or [base["seed"]])
    check_points(name, points, base)
    folder = EXPERIMENTS / name
    code = code_digest()
    with _only_one(), tqdm(points, desc=f"sweep {name}", unit="point", disable=None) as bar:
        results, paths, selection = [], [], {}
        for point in bar:
            params = resolve(base, point.overrides)
            selection[point.label] = params["fuse"]["selection"]
            identity = digest({"params": {k: v for k, v in params.items() if k not in AFTER}, "code": code})
            path = folder / "points" / f"{identity}.json"
            if not _is_done(path):
                _run_point(experiment, point, params, path, bar)
            results.append(read_point(path, point))
            paths.append(path)
    if all(result.error for result in results):
        raise LlmI2iError(f"experiment {name}", f"no point could be run: {results[0].error}")
    _write(experiment, results, folder, Params.model_validate(base), selection)
    _say_what_ran(name, folder, paths)


def code_digest() -> str:
    """Digest of the code and data description that results depend on."""
    files = [
        file
        for name in CODE
        for file in ([Path(name)] if Path(name).is_file() else sorted(Path(name).rglob("*")))
        if file.suffix in {".py", ".yaml", ".dvc"} and not file.as_posix().startswith(NOT_CODE)
    ]
    return digest({file.as_posix(): content_md5(file) for file in files})


def _base_params(experiment: Experiment) -> dict[str, Any]:
    """Everything that runs, under the experiment's profile if it names one."""
    if not experiment.profile:
        return read_params()
    raw = read_written()
    restated = overlay(raw, profile.under(raw, experiment.profile))
    return overlay(read_profile(experiment.profile), restated)


@contextmanager
def _only_one() -> Iterator[None]:
    """Wait until no other sweep runs here, nor a point that a killed sweep left at work.

    dvc inherits the lock: it is held until both have ended, however they end.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / "sweep.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("sweep: another sweep is running here; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        os.set_inheritable(file.fileno(), True)
        yield


def _is_done(path: Path) -> bool:
    """Whether a point was measured; one that failed is tried again."""
    if not path.is_file() or not path.with_suffix(".parquet").is_file():
        return False
    record = read_json(path)
    return not record["error"] and "judge" in record  # older points lack it: collected anew, not run


def _run_point(experiment: Experiment, point: Point, params: dict[str, Any], path: Path, bar: Any) -> None:
    """Run one point unless DVC holds it already, and write what it measured."""
    name = f"{experiment.name}-{path.stem}"
    record: dict[str, Any] = {
        "label": point.label,
        "overrides": dict(point.overrides),
        "changed": dict(point.changed),
        "seed": point.seed,
        "experiment": name,
        "stages_run": [],
        "error": "",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if experiment_ref(name) is None:
        targets = (*TARGETS, "evaluate_generator") if experiment.generator_alone else TARGETS
        words = [*_settings(experiment, point), *targets]
        record["stages_run"], record["error"] = _dvc_exp_run(name, words, path, bar)
    ref = experiment_ref(name)
    if ref is not None:
        record["error"] = ""
        per_user = collect(Revision(ref), params, record, generator_alone=experiment.generator_alone)
        schema.write_table(per_user, path.with_suffix(".parquet"), PER_USER_COLUMNS)
        path.with_suffix(".log").unlink(missing_ok=True)
    else:
        record["error"] = record["error"] or "dvc exp run left no experiment"
        logger.warning("sweep: point %s failed: %s", point.label, record["error"])
    write_json(record, path)


def _settings(experiment: Experiment, point: Point) -> list[str]:
    """The point as `-S` options of dvc, the profile's values first."""
    values: dict[str, Value] = {}
    if experiment.profile:
        under = profile.under(read_written(), experiment.profile)
        values |= {".".join(key): value for key, value in leaves(under)}
    values |= point.overrides
    return [option for key, value in values.items() for option in ("-S", f"{_place(key)}={_hydra(value)}")]


def _place(key: str) -> str:
    """Where dvc writes a key: options of I2I models into their file, any other into params.yaml, there yet or not."""
    parts = key.split(".")
    of_a_model = parts[0] == "train_i2i" and len(parts) > 2
    return f"{profile.MODELS.as_posix()}:{key}" if of_a_model else f"++{key}"


def _hydra(value: Value) -> str:
    """A value in Hydra's override grammar, which dvc reads."""
    if isinstance(value, list):
        return "[" + ",".join(_hydra(entry) for entry in value) + "]"
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return json.dumps(value)


def _dvc_exp_run(name: str, words: list[str], path: Path, bar: Any) -> tuple[list[str], str]:
    """Run settings and targets in a folder of their own; return the stages run and, if it failed, why.

    ZenML stays off: a point is a measurement of stages whose runs it would only repeat in the store.
    """
    command = [*DVC, "exp", "run", "--temp", "--name", name, *words]
    stages: list[str] = []
    log = path.with_suffix(".log")
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(  # noqa: S603 - fixed words and checked values, no shell
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
            close_fds=False,
        )
        try:
            for line in process.stdout or ():
                if line.startswith("Running stage '"):
                    stages.append(line.split("'")[1])
                    bar.set_postfix_str(stages[-1])
        finally:
            if sys.exc_info()[0] is not None:
                process.terminate()
            status = process.wait()
    logger.info("sweep: %s ran %d stage(s): %s", name, len(stages), ", ".join(stages) or "none")
    return stages, _reason(log) if status else ""


def _reason(log: Path) -> str:
    """The stage's own error, else the last line of the log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (ours or [line for line in lines if line.startswith("ERROR")] or lines or ["no message"])[-1]


def collect(
    revision: Revision, params: dict[str, Any], record: dict[str, Any], *, generator_alone: bool
) -> pd.DataFrame:
    """Put metrics, kept counts and the judge's figures into the record; return the per-user ranks of all runs."""
    items = schema.read_table(revision.output("artifacts/items/items.parquet"), schema.ITEMS)
    long_tail = set(items.loc[items["is_long_tail"], schema.ITEM_ID])
    arms, models = params["fuse"]["arms"], params["train_i2i"]["models"]
    record["fused"] = {arm: read_json(revision.output(f"artifacts/fused/{arm}.json")) for arm in arms}
    record["judge"] = read_json(revision.output("artifacts/judged/judge.json"))
    record["metrics"], tables = {}, []
    runs = [(model, arm) for model in models for arm in arms]
    alone = [(schema.GENERATOR, arm) for arm in params["evaluate_generator"]["arms"] if generator_alone]
    for model, arm in runs + alone:
        run = f"{model}-{arm}"
        record["metrics"][run] = revision.json(f"reports/metrics/{run}.json")
        table = schema.read_table(revision.output(f"artifacts/evaluation/{run}.parquet"), schema.PER_USER)
        is_long_tail = table[schema.ITEM_ID].isin(long_tail)
        tables.append(table.assign(model=model, arm=arm, is_long_tail=is_long_tail))
    return pd.concat(tables, ignore_index=True)


def read_point(path: Path, point: Point) -> PointResult:
    """What `collect` kept of a point, from PATH.json and PATH.parquet."""
    record = read_json(path)
    if record["error"]:
        return PointResult(point.label, point.seed, {}, {}, error=record["error"])
    return PointResult(
        label=point.label,
        seed=point.seed,
        metrics={(m["model"], m["arm"]): m for m in record["metrics"].values()},
        fused=record["fused"],
        per_user=schema.read_table(path.with_suffix(".parquet"), PER_USER_COLUMNS),
        judge=record["judge"],
    )


def _write(
    experiment: Experiment, points: list[PointResult], folder: Path, base: Params, selection: dict[str, str]
) -> None:
    """Write table.csv, README.md, results.json and the plots; the same points give the same bytes."""
    resamples = base.report.bootstrap_resamples
    content = evaluate_experiment(experiment, points, resamples=resamples, seed=base.seed)
    write_frame(rows_of(content), folder / "table.csv")
    plots = experiment_plots(experiment, content)
    for old in folder.glob("*.svg"):
        old.unlink()
    for plot in plots:
        write_text(plot.svg, folder / f"{plot.name}.svg")
    pictures = "\n".join(f"![{escape_markdown(plot.title)}]({plot.name}.svg)\n" for plot in plots)
    hashes = dict.fromkeys(value for by_model in content["protocol_hash"].values() for value in by_model.values())
    protocols = ", ".join(value[:12] for value in hashes)
    text = (
        f"# {experiment.name}\n\n{escape_markdown(tell(content))}\n\n"
        f"{markdown_table(experiment_table(content))}\n{pictures}\n"
        f"Protocol {protocols}. Made by `python -m pipelines sweep {experiment.name}`.\n"
    )
    write_text(text, folder / "README.md")
    names = [f"{plot.name}.svg" for plot in plots]
    write_json(content | {"plots": names, "selection": selection}, folder / "results.json")
    shown = folder / "README.md"
    logger.info("sweep: %d points, %s (into the report: `python -m pipelines report`)", len(points), shown)


def _say_what_ran(name: str, folder: Path, paths: list[Path]) -> None:
    """Write stages.json: which stages each point ran; all others came from DVC's cache."""
    records = map(read_json, paths)
    ran = {record["experiment"]: record["stages_run"] for record in records}
    trained = [stage for stages in ran.values() for stage in stages if stage in TRAININGS]
    write_json({"stages_run": ran, "llm_trainings": len(trained)}, folder / "stages.json")
    logger.info("sweep: %s trained an LLM %d time(s)", name, len(trained))
