"""Write the model card of each model of dvc.yaml into reports/model_cards/."""

import logging
from pathlib import Path
from typing import Any

from llm_i2i.data.movielens import DATA_MD5
from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.files import read_json, write_text
from llm_i2i.params import ModelCardParams, Params, load_params
from llm_i2i.registry import models
from llm_i2i.reporting.model_card import METRICS, Promotion, adapter_card, index_card
from llm_i2i.reporting.provenance import UNKNOWN, read_provenance
from llm_i2i.schema import PER_USER, read_table
from steps import paths

logger = logging.getLogger(__name__)


def about(params: Params) -> ModelCardParams:
    """Section model_card; unknown where it still speaks of MovieLens, which every profile does, and the data is not."""
    written = params.model_card
    if "movielens" in written.data.lower() and read_provenance(Path()).data.get("md5") != DATA_MD5:
        return ModelCardParams(data=UNKNOWN, data_licence=UNKNOWN)
    return written


def write(version: str) -> None:
    """Write all cards of a version.

    Args:
        version: As GTO names it.
    """
    params = load_params()
    promotion = Promotion(
        version=version,
        gate=_json(paths.GATE),
        data=read_provenance(Path()).data,
        base_model=_json(paths.BASE_MODEL / "manifest.json"),
        about=about(params),
    )
    for place, (name, model) in enumerate(models().items()):
        if place:
            text = adapter_card(name, promotion, purpose=model.get("desc", name))
        else:
            run = f"{params.gate.model}-{params.gate.arm}"
            manifest = _json(paths.I2I / run / "manifest.json")
            text = index_card(name, promotion, manifest=manifest, metrics=_metrics(run, params))
        write_text(text, paths.MODEL_CARDS / f"{name}.md")
    logger.info("promote: model cards in %s", paths.MODEL_CARDS)


def _metrics(run: str, params: Params) -> dict[str, Any]:
    """The run's metrics with intervals over users: those of the difference from a model that finds nothing."""
    table = read_table(paths.EVALUATION / f"{run}.parquet", PER_USER)
    values = PairedDifference(Measured.once(table), None)
    intervals: dict[str, dict[str, list[float]]] = {}
    for place in ("overall", *table["bucket"].unique()):
        for metric in METRICS:
            resamples = params.report.bootstrap_resamples
            _, low, high = values.interval(metric, place, resamples=resamples, seed=params.seed)
            intervals.setdefault(place, {})[metric] = [low, high]
    return {**_json(paths.METRICS / f"{run}.json"), "intervals": intervals}


def _json(path: Path) -> dict[str, Any]:
    """A JSON file; empty if it is not there."""
    content: dict[str, Any] = read_json(path) if path.is_file() else {}
    return content
