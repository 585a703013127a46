"""Near misses of the generator: what it names next at a moment of the training history, and the user did not take."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.catalogue import histories_by_user
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.moments import draw_moment, held_out_and_fit
from llm_i2i.llm.synthesis import synthesize
from llm_i2i.params import (
    OF_THE_GENERATOR,
    MineNegativesParams,
    RuntimeParams,
    SynthesizeParams,
    TrainDiscriminatorParams,
)
from llm_i2i.schema import ITEM_ID, NEAR_MISSES, POSITION, USER_ID

log = logging.getLogger(__name__)


def mine_negatives(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    identifiers: Identifiers,
    base_model: Path,
    adapter: Path,
    params: MineNegativesParams,
    discriminator: TrainDiscriminatorParams,
    runtime: RuntimeParams,
    seed: int,
    checkpoints: Path,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The generator's most probable items at one moment of each user whom the discriminator is asked about.

    What the user took in training, before or after the moment, is no miss and left out. Validation and test items are
    not looked at: a No that is missing would tell them apart, and with it the answer would leak.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        items: Catalogue (schema.ITEMS).
        identifiers: The items' names.
        base_model: Output folder of stage base_model.
        adapter: Output folder of stage train_generator.
        params: Section mine_negatives.
        discriminator: Section train_discriminator: its users, and its law of moments.
        runtime: Section runtime.
        seed: Of users and moments.
        checkpoints: Folder of finished batches: a killed run goes on after them.

    Returns:
        Rows (schema.NEAR_MISSES), none where the discriminator's negatives are of another kind; runtime facts.

    Raises:
        DataError: Too few users.
    """
    if discriminator.negatives not in OF_THE_GENERATOR:
        return pd.DataFrame(columns=list(NEAR_MISSES)).astype(NEAR_MISSES), {}
    by_user = histories_by_user(train, items)
    rng = np.random.default_rng(seed)
    users = sorted(user for part in held_out_and_fit(by_user, discriminator, seed=seed) for user in part)
    moments = pd.Series({user: draw_moment(by_user[user], discriminator, rng) for user in users})
    before = train.groupby(USER_ID)[POSITION].rank() <= train[USER_ID].map(moments)
    search = SynthesizeParams(
        **params.model_dump(),
        decoding="beam",
        temperature=1.0,
        top_p=1.0,
        max_users=0,
        long_tail_only=False,
    )
    found, _, facts = synthesize(
        train=train[before],
        items=items,
        identifiers=identifiers,
        base_model=base_model,
        adapter=adapter,
        params=search,
        runtime=runtime,
        seed=seed,
        checkpoints=checkpoints,
    )
    pair = [USER_ID, ITEM_ID]
    taken = pd.MultiIndex.from_frame(found[pair]).isin(pd.MultiIndex.from_frame(train[pair]))
    rows = found[~taken].assign(moment=found[USER_ID].map(moments))
    log.info("mine_negatives: %d near misses of %d users", len(rows), len(users))
    return rows[list(NEAR_MISSES)].astype(NEAR_MISSES).reset_index(drop=True), facts
