"""Stage score: ask the discriminator about one source's pairs, and with the generator's also about real ones."""

from llm_i2i.files import staged, write_json
from llm_i2i.llm import scoring as core
from llm_i2i.params import load_params
from llm_i2i.schema import (
    GENERATOR,
    INTERACTIONS,
    SCORED,
    SOURCE_SYNTHETIC,
    SYNTHETIC,
    USER_ID,
    read_table,
    write_table,
)
from steps import parts, paths
from steps.llm import read_setup, with_names
from steps.stage import Outcome, stage_step


@stage_step
def score(source: str) -> Outcome:
    """Compute the calibrated probability of Yes of each row; a killed run resumes after its last shard.

    Args:
        source: One of score.sources.
    """
    params = parts.share_threads(load_params())
    setup = read_setup(params)
    train = with_names(read_table(paths.TRAIN, INTERACTIONS), setup)
    proposed = with_names(read_table(paths.PROPOSED / f"{source}.parquet", SYNTHETIC), setup)
    rows, calibration, facts = core.score(
        train=train,
        synthetic=proposed[proposed[USER_ID].isin(train[USER_ID])].reset_index(drop=True),
        setup=setup,
        adapter=paths.DISCRIMINATOR,
        params=params.score,
        shards=parts.shards(params, "score", source=source),
        source=SOURCE_SYNTHETIC if source == GENERATOR else source,
    )
    table, facts_of_model = paths.SCORED / f"{source}.parquet", paths.SCORED / f"{source}.json"
    with staged(table) as table_out, staged(facts_of_model) as facts_out:
        write_table(rows, table_out, SCORED)
        write_json(calibration, facts_out)
    return Outcome((table, facts_of_model), rows=len(rows), runtime=facts)
