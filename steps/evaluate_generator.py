"""Stage evaluate_generator: measure the generator as a recommender of its own."""

import pandas as pd

from llm_i2i.evaluation.generator import evaluate_generator as measure
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import GENERATOR, INTERACTIONS, PER_USER, read_table, write_table
from steps import parts, paths
from steps.llm import read_setup, with_names
from steps.stage import Outcome, stage_step


@stage_step
def evaluate_generator(arm: str) -> Outcome:
    """Let the generator rank the catalogue for test users and compute every metric of its lists.

    Args:
        arm: One of evaluate_generator.arms.
    """
    params = parts.share_threads(load_params())
    setup = read_setup(params)
    train, valid, test = (
        with_names(read_table(path, INTERACTIONS), setup) for path in (paths.TRAIN, paths.VALID, paths.TEST)
    )
    metrics, per_user = measure(
        history=pd.concat([train, valid], ignore_index=True),
        test=test,
        setup=setup,
        generator=paths.GENERATOR if arm == "llm_only" else None,
        params=params,
        shards=parts.shards(params, "evaluate_generator", arm=arm),
    )
    name = f"{GENERATOR}-{arm}"
    table, numbers = paths.EVALUATION / f"{name}.parquet", paths.METRICS / f"{name}.json"
    with staged(table) as table_out, staged(numbers) as numbers_out:
        write_table(per_user, table_out, PER_USER)
        write_json({**metrics, "model": GENERATOR, "arm": arm}, numbers_out)
    return Outcome((table, numbers), rows=len(per_user), metrics=metrics["overall"])
