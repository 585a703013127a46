"""Stage synthesize: generate the items that users would take next."""

from llm_i2i.files import staged, write_json
from llm_i2i.llm import synthesis as core
from llm_i2i.llm.role import llm_setup
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, SYNTHETIC, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def synthesize() -> Outcome:
    """Generate catalogue items outside each user's history; a killed run resumes after its last batch."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    rows, stats, facts = core.synthesize(
        train=read_table(paths.TRAIN, INTERACTIONS),
        setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
        adapter=paths.GENERATOR,
        params=params.synthesize,
        checkpoints=paths.checkpoints("synthesize"),
    )
    with staged(paths.SYNTHETIC) as table_out, staged(paths.SYNTHESIS) as stats_out:
        write_table(rows, table_out, SYNTHETIC)
        write_json(stats, stats_out)
    return Outcome((paths.SYNTHETIC, paths.SYNTHESIS), rows=len(rows), runtime=facts)
