"""Stage evaluate: measure one index on the test items."""

from llm_i2i.evaluation.evaluate import HISTORY, evaluate_index
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, PER_USER, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def evaluate(model: str, arm: str) -> Outcome:
    """Rank the whole catalogue for each test user and compute every metric.

    Args:
        model: One of train_i2i.models.
        arm: One of fuse.arms.
    """
    name = f"{model}-{arm}"
    columns = {column: INTERACTIONS[column] for column in HISTORY}
    metrics, per_user = evaluate_index(
        index=read_table(paths.I2I / name / "index.parquet", INDEX, encoded=True),
        train=read_table(paths.TRAIN, columns, encoded=True),
        valid=read_table(paths.VALID, columns, encoded=True),
        test=read_table(paths.TEST, INTERACTIONS),
        items=read_table(paths.ITEMS, ITEMS),
        protocol=Protocol.from_params(load_params(), model=model),
    )
    table, numbers = paths.EVALUATION / f"{name}.parquet", paths.METRICS / f"{name}.json"
    with staged(table) as table_out, staged(numbers) as numbers_out:
        write_table(per_user, table_out, PER_USER)
        write_json({**metrics, "model": model, "arm": arm}, numbers_out)
    return Outcome((table, numbers), rows=len(per_user), metrics=metrics["overall"])
