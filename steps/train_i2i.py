"""Stage train_i2i: an item-to-item index of one model on one arm's data."""

import logging

import pandas as pd

from llm_i2i.files import file_sha256, staged, write_json
from llm_i2i.i2i.index import index_sha256
from llm_i2i.i2i.train import TUNED, train_index
from llm_i2i.params import Params, load_params
from llm_i2i.schema import FUSED, INDEX, ITEMS, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step

logger = logging.getLogger(__name__)


@stage_step
def train_i2i(model: str, arm: str) -> Outcome:
    """Train a model and save each item's neighbours.

    Args:
        model: One of train_i2i.models.
        arm: One of fuse.arms.
    """
    params = load_params()
    fused_path, folder = paths.FUSED / f"{arm}.parquet", paths.I2I / f"{model}-{arm}"
    index = _trained(model, arm, params)
    section = params.train_i2i.model_dump(mode="json")
    with staged(folder) as out:
        write_table(index, out / "index.parquet", INDEX)
        manifest = {
            "model": model,
            "arm": arm,
            "params": {"seed": params.seed, "top_k": section["top_k"], model: section.get(model, {})},
            "rows": len(index),
            "items_with_neighbours": int(index["item_id"].nunique()),
            # No git revision here: it would change the bytes of an equal index. An export's manifest has it.
            "content_sha256": index_sha256(index),
            "sha256": file_sha256(out / "index.parquet"),
            "fused_sha256": file_sha256(fused_path),
            "items_sha256": file_sha256(paths.ITEMS),
        }
        write_json(manifest, out / "manifest.json")
    return Outcome((folder,), rows=len(index))


def _trained(model: str, arm: str, params: Params) -> pd.DataFrame:
    """The index, by the engine that params name."""
    items, fused = read_table(paths.ITEMS, ITEMS), paths.FUSED / f"{arm}.parquet"
    if params.runtime.engine == "spark":
        from llm_i2i.spark import similar  # noqa: PLC0415 - what extra `spark` installs
        from llm_i2i.spark.session import session  # noqa: PLC0415

        if model.removesuffix(TUNED) in similar.MODELS:
            with session(params.spark) as spark:
                return similar.train_index(
                    spark, model=model, fused=fused, items=items, params=params.train_i2i,
                    partition_mb=params.spark.partition_mb,
                )  # fmt: skip
        logger.warning("%s trains on this machine alone: Spark has %s", model, ", ".join(similar.MODELS))
    return train_index(
        model=model,
        fused=read_table(fused, FUSED, encoded=True),
        items=items,
        params=params.train_i2i,
        seed=params.seed,
        kept=paths.kept("train_i2i", model=model, arm=arm) if params.update.retrain_after else None,
    )
