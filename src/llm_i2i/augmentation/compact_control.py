"""The control `compact`: pairs by a small model of one token per item, trained on the interactions alone.

The gain of the LLM's pairs over these is what its pretraining adds.
"""

from pathlib import Path

import pandas as pd

from llm_i2i.arrays import FloatArray
from llm_i2i.data.identifiers import identify_items
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.shards import Shards
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.llm.synthesis import synthesize
from llm_i2i.params import Params
from llm_i2i.schema import HELD_OUT

TEMPLATE = "generator_bare_v1"


def compact_rows(
    *, train: pd.DataFrame, items: pd.DataFrame, text: FloatArray, params: Params, work: Path
) -> pd.DataFrame:
    """Train the compact backbone and let it write pairs, for as many users and items as section synthesize says.

    Args:
        train: schema.INTERACTIONS.
        items: schema.ITEMS.
        text: float (n_items, n_dimensions), the items' text vectors.
        params: Sizes from base_model.compact, training from controls.compact.
        work: Folder of models and resumable states; the caller removes it once the rows are in place.

    Returns:
        schema.SYNTHETIC, sorted by (user_id, rank).

    Raises:
        DataError: No user has two training interactions.
        TrainingError: The training diverges.
        GenerationError: No item can be generated for any user.
    """
    compact = params.controls.compact.model_dump()
    early_stopping = params.train_generator.early_stopping.model_copy(update={"patience": 0})
    # What is not replaced here (LoRA, when to checkpoint) has no effect on a model that trains whole.
    fixed = {"early_stopping": early_stopping, "gradient_checkpointing": False, "optimizer": "adamw"}
    settings = params.train_generator.model_copy(update={"template": TEMPLATE, **fixed, **compact})
    token = params.identify.model_copy(update={"identifier": "token"})
    names, new_tokens = identify_items(items, train, text=text, params=token, seed=params.seed)
    base_model, generator = work / "base_model", work / "generator"
    source = params.base_model.model_copy(update={"source": "compact"})
    prepare_base_model(source, seed=params.seed, out=base_model, downloads=work)
    identifiers = Identifiers(tuple(names), tuple(new_tokens))
    setup = LlmSetup(items, identifiers, text, base_model, params.runtime, params.seed)
    nothing = pd.DataFrame(columns=list(HELD_OUT)).astype(HELD_OUT)
    train_generator(
        train=train,
        held_out=nothing,
        setup=setup,
        params=settings,
        out=generator,
        checkpoints=work / "checkpoints",
        section="controls.compact",
    )
    rows, _, _ = synthesize(
        train=train,
        held_out=nothing,
        setup=setup,
        adapter=generator,
        params=params.synthesize,
        shards=Shards(work / "shards"),
    )
    return rows
