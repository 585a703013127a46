"""Where every table, model and report lies, relative to the project folder, as in dvc.yaml."""

from pathlib import Path
from typing import Final

from llm_i2i.stages import instance_name

DATA: Final = Path("data")
DOWNLOADS: Final = Path(".downloads")
CHECKPOINTS: Final = Path(".checkpoints")
KEPT: Final = Path(".kept")
LOCKS: Final = Path(".locks")

VALIDATION: Final = Path("artifacts/validation")
SPLIT: Final = Path("artifacts/split")
TRAIN: Final = SPLIT / "train.parquet"
VALID: Final = SPLIT / "valid.parquet"
TEST: Final = SPLIT / "test.parquet"
HELD_OUT: Final = SPLIT / "held_out.parquet"
ITEMS_FOLDER: Final = Path("artifacts/items")
ITEMS: Final = ITEMS_FOLDER / "items.parquet"
TEXT: Final = Path("artifacts/text")
TEXT_VECTORS: Final = TEXT / "vectors.npy"
IDENTIFIERS: Final = Path("artifacts/identifiers")
NAMES: Final = IDENTIFIERS / "identifiers.parquet"
BASE_MODEL: Final = Path("artifacts/base_model")
GENERATOR: Final = Path("artifacts/generator")
DISCRIMINATOR: Final = Path("artifacts/discriminator")
PROPOSED: Final = Path("artifacts/proposed")
SYNTHETIC: Final = PROPOSED / "generator.parquet"
SYNTHESIS: Final = PROPOSED / "generator.json"
SCORED: Final = Path("artifacts/scored")
JUDGED: Final = Path("artifacts/judged")
PAIRS: Final = JUDGED / "pairs.parquet"
FUSED: Final = Path("artifacts/fused")
I2I: Final = Path("artifacts/i2i")
EVALUATION: Final = Path("artifacts/evaluation")

METRICS: Final = Path("reports/metrics")
SEEDS: Final = Path("reports/seeds")
GATE: Final = Path("reports/gate.json")
GATE_MARKDOWN: Final = Path("reports/gate.md")
MODEL_CARDS: Final = Path("reports/model_cards")
TUNING: Final = Path("reports/tuning")
RUNTIME: Final = Path("reports/runtime")
COMPARISON: Final = Path("reports/comparison.json")
EXPERIMENTS: Final = Path("reports/experiments")
DATA_DOCS: Final = Path("reports/validation")
SUMMARY: Final = Path("reports/summary.json")
MONITOR: Final = Path("reports/monitor.json")
UPDATES: Final = Path("reports/updates.json")
REPORT_HTML: Final = Path("reports/report.html")
REPORT_MARKDOWN: Final = Path("reports/report.md")


def checkpoints(stage: str, **matrix: str) -> Path:
    """Where a stage keeps what a killed run resumes from; `stage_step` deletes it once the outputs are in place."""
    return CHECKPOINTS / instance_name(stage, matrix)


def kept(stage: str, **matrix: str) -> Path:
    """Where a stage keeps results for the next run under update.retrain_after."""
    return KEPT / f"{instance_name(stage, matrix)}.npz"
