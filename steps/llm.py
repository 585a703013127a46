"""What every stage that runs an LLM reads."""

from llm_i2i.llm.role import LlmSetup, llm_setup
from llm_i2i.params import Params
from llm_i2i.schema import ITEMS, read_table
from steps import paths


def read_setup(params: Params) -> LlmSetup:
    """The catalogue with its names and text vectors, the base model, runtime and seed."""
    return llm_setup(
        params,
        read_table(paths.ITEMS, ITEMS),
        names=paths.IDENTIFIERS,
        text=paths.TEXT_VECTORS,
        base_model=paths.BASE_MODEL,
    )
