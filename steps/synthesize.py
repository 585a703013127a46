"""Stage synthesize: generate the items that users would take next."""

from llm_i2i.files import staged, write_json
from llm_i2i.llm import synthesis as core
from llm_i2i.params import load_params
from llm_i2i.schema import HELD_OUT, INTERACTIONS, SYNTHETIC, read_table, write_table
from steps import parts, paths
from steps.llm import after_others, read_setup, with_names
from steps.stage import Outcome, stage_step


@stage_step
def synthesize() -> Outcome:
    """Generate catalogue items outside each user's history; a killed run resumes after its last batch."""
    params = parts.share_threads(load_params())
    setup = read_setup(params)
    train = with_names(read_table(paths.TRAIN, INTERACTIONS), setup)
    rows, stats, facts = core.synthesize(
        train=train,
        held_out=after_others(with_names(read_table(paths.HELD_OUT, HELD_OUT), setup), train),
        setup=setup,
        adapter=paths.GENERATOR,
        params=params.synthesize,
        shards=parts.shards(params, "synthesize"),
    )
    with staged(paths.SYNTHETIC) as table_out, staged(paths.SYNTHESIS) as stats_out:
        write_table(rows, table_out, SYNTHETIC)
        write_json(stats, stats_out)
    return Outcome((paths.SYNTHETIC, paths.SYNTHESIS), rows=len(rows), runtime=facts)
