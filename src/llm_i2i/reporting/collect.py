"""Read everything the report shows: the only place of this package that reads artifacts."""

import base64
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm_i2i import schema
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.paired import with_long_tail
from llm_i2i.evaluation.protocol import require_same_protocol
from llm_i2i.files import read_json
from llm_i2i.monitoring.drift import Watch
from llm_i2i.params import Params, load_params
from llm_i2i.reporting.provenance import Provenance, read_provenance

logger = logging.getLogger(__name__)

BASELINE_ARM = "real"
Json = dict[str, Any]
Run = tuple[str, str]  # (model, arm)
TRAININGS = ("generator", "discriminator")
# Experiments of the benchmark in the order of docs/results.md; what needs a GPU is run by benchmarks/gpu_method.py.
BENCHMARK = ("ablation", "recipe", "backbones", "controls", "threshold", "tail_weight", "volume")
BENCHMARK_ON_A_GPU = ("pretrained",)


@dataclass(frozen=True)
class ReportInputs:
    """All that a report is made of; None or a missing key = not measured here."""

    params: Params  # The parameters of the run
    # Content of reports/metrics/MODEL-ARM.json of the models and arms of params.yaml; one protocol in all of them,
    # but for the queries of tuned models
    metrics: dict[Run, Json]
    # Per-user ranks (schema.PER_USER and is_long_tail), sorted by user_id; same users and targets in all
    per_user: dict[Run, pd.DataFrame]
    items: pd.DataFrame  # The catalogue (schema.ITEMS)
    train: pd.DataFrame  # Training interactions (schema.INTERACTIONS)
    split_rows: dict[str, int]  # Interactions in train, valid and test
    split_manifest: Json  # What the split wrote about itself
    validation: Json  # Result of the data validation
    synthetic: pd.DataFrame  # Generated rows (schema.SYNTHETIC)
    scored: pd.DataFrame  # Scored rows (schema.SCORED), the generator's as judged
    fused: dict[str, pd.DataFrame]  # What each arm trained on (schema.FUSED), arms with synthetic rows only
    kept: dict[str, Json]  # Kept counts by arm
    # By arm of section evaluate_generator: metrics and per-user ranks (schema.PER_USER) of the generator as a
    # recommender of its own, on a sample of the test users
    generator_alone: dict[str, tuple[Json, pd.DataFrame]]
    held_out: Json | None  # AUC and reliability of the discriminator
    judge: Json | None  # What stage judge learned and how good it is; {} where the discriminator alone decides
    calibration: Json | None  # What scoring wrote about calibration
    synthesis: Json | None  # What synthesis wrote about itself (counts, validity)
    training: dict[str, pd.DataFrame]  # Training log of generator and discriminator (step, loss, ...)
    tokens_per_s: dict[str, pd.DataFrame]  # Tokens per second by step of both trainings
    runtime: dict[str, Json]  # Runtime facts by stage, `stage@model-arm` for matrix stages
    base_model: Json | None  # Manifest of the base LLM
    provenance: Provenance  # Git revision, data hash, versions
    # results.json of every finished experiment, its plots as (name, data URI) under "images"
    experiments: tuple[Json, ...]
    gate: Json | None  # Content of reports/gate.json
    comparison: Json | None  # Content of reports/comparison.json
    benchmark: Mapping[str, Mapping[str, Json]]  # What `read_benchmark` found
    watch: Watch | None = None  # The run against earlier ones
    # Names of metrics files of models and arms that params.yaml no longer names; they stay unread
    left_over: tuple[str, ...] = ()

    @property
    def protocol_hash(self) -> str:
        """The protocol hash of the first model; `protocol_hashes` has that of each."""
        return next(iter(self.protocol_hashes.values()))

    @property
    def protocol_hashes(self) -> dict[str, str]:
        """The protocol hash by model: one, but for the queries of tuned models."""
        return {model: str(content["protocol_hash"]) for (model, _), content in self.metrics.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """Models in the order of params.yaml."""
        return tuple(dict.fromkeys(model for model, _ in self.metrics))

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms: `real` first, then in the order of params.yaml."""
        return tuple(dict.fromkeys(arm for _, arm in self.metrics))


def _read_json(path: Path, *, stage: str) -> Json:
    """Read a JSON object that a stage wrote.

    Raises:
        ArtifactError: The file is missing, unreadable or no JSON object.
    """
    fix = f"run `dvc repro {stage}`"
    content = read_json(path, fix=fix)
    if not isinstance(content, dict):
        raise ArtifactError(str(path), f"holds a JSON {type(content).__name__}", "a JSON object", fix)
    return content


def _optional_json(path: Path, *, stage: str) -> Json | None:
    return _read_json(path, stage=stage) if path.is_file() else None


def _readable_json(path: Path) -> Json | None:
    """As `_optional_json`, but a file that cannot be read is left out with a warning, since it holds no result."""
    try:
        return _optional_json(path, stage="report")
    except ArtifactError as error:
        logger.warning("report: %s is left out: %s", path, error)
        return None


def _read_logs(paths: Mapping[str, Path], column: str) -> dict[str, pd.DataFrame]:
    """Read the CSV logs that are there, by training.

    Raises:
        ArtifactError: A log cannot be read, or its step or `column` is missing or not numeric.
    """
    logs = {}
    for name, path in ((name, path) for name, path in paths.items() if path.is_file()):
        fix = f"run `dvc repro train_{name}`"
        try:
            logs[name] = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise ArtifactError(str(path), f"unreadable ({error})", "a CSV file", fix) from error
        if wrong := sorted({"step", column} - {*logs[name].select_dtypes("number")}):
            found = f"columns {list(logs[name].columns)}"
            raise ArtifactError(str(path), found, f"numeric columns {wrong}", fix)
    return logs


def _read_runs(root: Path, runs: list[Run], ks: tuple[int, ...]) -> dict[Run, tuple[Json, pd.DataFrame]]:
    """Metrics and per-user ranks, sorted by user, of each run, which can be compared pair by pair.

    They have one protocol, but for the query, which a tuned model brings along.

    Raises:
        ArtifactError: A file is missing or without the required keys, a name does not match its content, ranks differ
            from their metrics, or protocols, users or targets of two runs differ.
    """
    fix = "run `dvc repro evaluate`"
    read: dict[Run, tuple[Json, pd.DataFrame]] = {}
    for model, arm in runs:
        path = root / "reports" / "metrics" / f"{model}-{arm}.json"
        content = _read_json(path, stage="evaluate")
        missing = sorted({"protocol_hash", "protocol", "model", "arm", "overall"} - content.keys())
        if missing:
            raise ArtifactError(str(path), f"no {missing}", "one evaluation's metrics", fix)
        if (found := (content["model"], content["arm"])) != (model, arm):
            raise ArtifactError(str(path), f"holds model, arm {found}", "what its name says", "rename it")
        for (other, _), (known, _) in read.items():
            require_same_protocol(known, content, same_query=other == model)
        path = root / "artifacts" / "evaluation" / f"{model}-{arm}.parquet"
        table = schema.read_table(path, schema.PER_USER).sort_values(schema.USER_ID, ignore_index=True)
        for k in ks:
            stated = content["overall"].get(f"recall@{k}")
            recall = float(table["rank"].between(1, k).mean()) if len(table) else 0.0
            if stated is not None and not math.isclose(stated, recall, abs_tol=1e-4):
                expected = f"{stated:.4f} as in reports/metrics/{model}-{arm}.json"
                raise ArtifactError(str(path), f"recall@{k} of its ranks is {recall:.4f}", expected, fix)
        keys = [schema.USER_ID, schema.ITEM_ID, "bucket"]
        _, first = next(iter(read.values()), (content, table))
        if not table[keys].equals(first[keys]):
            problem = f"{len(table)} users and targets that differ from those of another run ({len(first)})"
            raise ArtifactError(str(path), problem, "the same test users and targets in every run", fix)
        read[model, arm] = content, table
    return read


def _read_experiments(reports: Path) -> tuple[Json, ...]:
    """Finished experiments; a plot becomes an image that can neither run nor load anything."""
    experiments = []
    for path in sorted(reports.glob("experiments/*/results.json")):
        content = _readable_json(path)
        if content is not None:
            plots = [plot for name in content.get("plots", []) if (plot := path.with_name(name)).is_file()]
            encoded = [(plot.name, base64.b64encode(plot.read_bytes()).decode()) for plot in plots]
            images = [(name, f"data:image/svg+xml;base64,{text}") for name, text in encoded]
            experiments.append(content | {"images": images})
    return tuple(experiments)


def read_benchmark(folder: Path) -> dict[str, dict[str, Json]]:
    """The committed results on other data by data set and experiment, in the order of docs/results.md.

    Raises:
        ArtifactError: A file of them is no JSON.
    """
    place = {name: number for number, name in enumerate((*BENCHMARK, *BENCHMARK_ON_A_GPU))}
    results: dict[str, dict[str, Json]] = {}
    files = folder.glob("*/*.json")
    for path in sorted(files, key=lambda path: (path.parent.name, place.get(path.stem, len(place)), path.stem)):
        results.setdefault(path.parent.name, {})[path.stem] = read_json(path)
    return results


def collect(root: Path) -> ReportInputs:
    """Read the artifacts of a whole run below the project folder; optional parts that are not there are left out.

    Raises:
        ArtifactError: A required artifact is missing, malformed or does not fit the others.
        ParamsError: params.yaml breaks its schema.
    """
    artifacts, reports = root / "artifacts", root / "reports"
    params = load_params(root / "params.yaml")

    def table(path: str, columns: dict[str, str]) -> pd.DataFrame:
        return schema.read_table(artifacts / f"{path}.parquet", columns)

    arms: list[str] = sorted(params.fuse.arms, key=BASELINE_ARM.__ne__)
    runs: list[Run] = [(model, arm) for model in params.train_i2i.models for arm in arms]
    alone: list[Run] = [(schema.GENERATOR, arm) for arm in params.evaluate_generator.arms]
    written = {path.stem for path in (reports / "metrics").glob("*.json")}
    evaluated = _read_runs(root, runs, params.evaluate.ks)
    by_generator = _read_runs(root, [run for run in alone if "-".join(run) in written], params.evaluate.ks)
    items = table("items/items", schema.ITEMS)
    split = {part: table(f"split/{part}", schema.INTERACTIONS) for part in ("train", "valid", "test")}
    kept = {arm: _read_json(artifacts / "fused" / f"{arm}.json", stage="fuse") for arm in arms}
    controls = [source for source in params.score.sources if source != schema.GENERATOR]
    scored = [table(f"scored/{control}", schema.SCORED) for control in controls]
    proposed = table("proposed/generator", schema.SYNTHETIC)
    runtime = reports / "runtime"
    by_stage = {path.stem: _readable_json(path) for path in sorted(runtime.glob("*.json"))}
    inputs = ReportInputs(
        params=params,
        metrics={run: metrics for run, (metrics, _) in evaluated.items()},
        per_user={run: with_long_tail(ranks, items) for run, (_, ranks) in evaluated.items()},
        items=items,
        train=split["train"],
        split_rows={part: len(table) for part, table in split.items()},
        split_manifest=_read_json(artifacts / "split" / "manifest.json", stage="split"),
        validation=_read_json(artifacts / "validation" / "validation.json", stage="validate"),
        synthetic=proposed[~proposed["held_out"]],
        scored=pd.concat([table("judged/pairs", schema.JUDGED), *scored], ignore_index=True),
        fused={a: table(f"fused/{a}", schema.FUSED) for a, n in kept.items() if n.get("synthetic_kept")},
        kept=kept,
        generator_alone={arm: found for (_, arm), found in by_generator.items()},
        held_out=_optional_json(artifacts / "discriminator" / "held_out.json", stage="train_discriminator"),
        judge=_optional_json(artifacts / "judged" / "judge.json", stage="judge"),
        calibration=_optional_json(artifacts / "scored" / "generator.json", stage="score"),
        synthesis=_optional_json(artifacts / "proposed" / "generator.json", stage="synthesize"),
        training=_read_logs({name: artifacts / name / "training.csv" for name in TRAININGS}, "loss"),
        tokens_per_s=_read_logs({name: runtime / f"train_{name}.csv" for name in TRAININGS}, "tokens_per_s"),
        runtime={stage: facts for stage, facts in by_stage.items() if facts is not None},
        base_model=_optional_json(artifacts / "base_model" / "manifest.json", stage="base_model"),
        provenance=read_provenance(root),
        experiments=_read_experiments(reports),
        gate=_readable_json(reports / "gate.json"),
        comparison=_readable_json(reports / "comparison.json"),
        benchmark=read_benchmark(reports / "benchmark"),
        left_over=tuple(sorted(written - set(map("-".join, runs + alone)))),
    )
    n_users = f"{len(next(iter(inputs.per_user.values()))):,}"
    logger.info("report: %d models x %d arms, %s test users", len(inputs.models), len(inputs.arms), n_users)
    return inputs
