"""Near misses of the generator: what it names next at a moment of the training history, and the user did not take."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.catalogue import histories_by_user
from llm_i2i.llm.negatives import draw_moment, held_out_and_fit
from llm_i2i.llm.role import LlmSetup
from llm_i2i.llm.synthesis import UserSearch, search_next_items
from llm_i2i.params import OF_THE_GENERATOR, MineNegativesParams, TrainDiscriminatorParams
from llm_i2i.schema import ITEM_ID, NEAR_MISSES, USER_ID

log = logging.getLogger(__name__)


def mine_negatives(
    *,
    train: pd.DataFrame,
    setup: LlmSetup,
    adapter: Path,
    params: MineNegativesParams,
    discriminator: TrainDiscriminatorParams,
    checkpoints: Path,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The generator's most probable items at one moment of each user whom the discriminator is asked about.

    Items that the user took in training, before or after the moment, are not misses and are left out. Validation and
    test items are not looked at: if they never occurred as a No, their absence would leak the answer.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        setup: Items, names, base model, runtime and seed; the seed draws users and moments.
        adapter: Output folder of stage train_generator.
        params: Section mine_negatives.
        discriminator: Section train_discriminator: its users, and how their moments are drawn.
        checkpoints: Folder of finished batches: a killed run continues after them.

    Returns:
        Rows (schema.NEAR_MISSES), none where the discriminator's negatives are of another kind; runtime facts.

    Raises:
        DataError: Too few users.
    """
    if discriminator.negatives not in OF_THE_GENERATOR:
        return pd.DataFrame(columns=list(NEAR_MISSES)).astype(NEAR_MISSES), {}
    by_user = histories_by_user(train, setup.items)
    rng = np.random.default_rng(setup.seed)
    users = sorted(
        user for part in held_out_and_fit(by_user, discriminator, seed=setup.seed) for user in part
    )
    moments = {user: draw_moment(by_user[user], discriminator, rng) for user in users}
    histories = {user: by_user[user][:moment] for user, moment in moments.items()}
    excluded = {user: np.unique(history) for user, history in histories.items()}
    wanted = UserSearch(histories, excluded, params)
    found, facts = search_next_items(wanted, setup=setup, adapter=adapter, checkpoints=checkpoints)
    pair = [USER_ID, ITEM_ID]
    taken = pd.MultiIndex.from_frame(found[pair]).isin(pd.MultiIndex.from_frame(train[pair]))
    rows = found[~taken].assign(moment=found[USER_ID].map(moments))
    log.info("mine_negatives: %d near misses of %d users", len(rows), len(users))
    return rows[list(NEAR_MISSES)].astype(NEAR_MISSES).reset_index(drop=True), facts
