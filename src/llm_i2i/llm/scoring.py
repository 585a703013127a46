"""Scoring: p_yes of synthetic and real interactions (LLM-I2I, section 3.3)."""

import logging
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import histories_by_user, item_indices
from llm_i2i.files import read_json
from llm_i2i.llm.calibration import p_yes
from llm_i2i.llm.draws import number_of, sample_users
from llm_i2i.llm.engine.models import MANIFEST
from llm_i2i.llm.engine.shards import Arrays, Shards, Wanted, alike, code_sha256, fingerprint
from llm_i2i.llm.questions import HELD_OUT_FILE, question_length, questions, read_margins
from llm_i2i.llm.role import LlmSetup, Task, adapter_sha256, discriminator_role, read_task
from llm_i2i.params import ScoreParams
from llm_i2i.schema import SCORED, SOURCE_HELD_OUT, SOURCE_REAL, SOURCE_SYNTHETIC, USER_ID

log = logging.getLogger(__name__)
SHARD_SEQUENCES = 64  # histories with their candidates per shard: what a killed run loses at most


class Asked(NamedTuple):
    """Questions about one user's history.

    Attributes:
        user: User id.
        source: Where the candidates come from (schema.SCORED).
        history: Item indices in time order.
        candidates: Item indices.
        ranks: int64 (n_candidates,): the synthetic rank, 0 for real items.
    """

    user: str
    source: str
    history: IntArray
    candidates: IntArray
    ranks: IntArray


def score(
    *,
    train: pd.DataFrame,
    synthetic: pd.DataFrame,
    setup: LlmSetup,
    adapter: Path,
    params: ScoreParams,
    shards: Shards,
    source: str = SOURCE_SYNTHETIC,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """p_yes of every proposed row and, beside the generator's, of real training rows.

    A proposed item is asked about after the items that it was proposed after. Real items are asked about in runs of
    neighbours, after the items before the run (and, where those are too few, those after it): never after
    themselves.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        synthetic: schema.SYNTHETIC.
        setup: Items, names, base model, runtime and seed; the seed samples the real rows.
        adapter: Output folder of stage train_discriminator.
        params: Section score.
        shards: Finished histories, and which of them this process makes.
        source: Who proposed the rows: `synthetic` (the generator) or the name of a control. Real rows are asked about
            with the generator's only, once for all sources.

    Returns:
        Rows (schema.SCORED, and `rank`: the synthetic rank, 0 for real rows); calibration facts; runtime facts.

    Raises:
        PartDone: This process makes a part only, and has.
    """
    task, items = read_task(adapter), setup.items
    by_user = histories_by_user(train, items)
    asked = list(_synthetic_questions(synthetic, source, items, by_user, task.max_history))
    if source == SOURCE_SYNTHETIC:
        asked += _real_questions(by_user, task.max_history, params, setup.seed, apart=shards.kept is not None)
    margins, facts = _answers(asked, setup=setup, adapter=adapter, params=params, shards=shards)
    held_out = read_json(adapter / HELD_OUT_FILE)
    table = _table(asked, margins, items, temperature=held_out["temperature"])
    return table, _calibration(held_out, task, table), facts


def _answers(
    asked: list[Asked], *, setup: LlmSetup, adapter: Path, params: ScoreParams, shards: Shards
) -> tuple[list[FloatArray], dict[str, Any]]:
    """logit_yes - logit_no of every candidate, float64 (n_candidates,) per history; runtime facts."""
    role = discriminator_role(setup, read_task(adapter))
    prompt = role.prompt
    settings: list[str | IntArray] = [
        f"{params.model_dump_json()} {role.device.facts} {adapter_sha256(adapter)}",
        f"{SHARD_SEQUENCES} {role.context} {prompt.answers}",
        (setup.base_model / MANIFEST).read_text(encoding="utf-8"),
        role.catalogue.tokens,
        *(prompt.prefix, prompt.between, prompt.suffix),
    ]
    lengths = [question_length(a.history, a.candidates, role) for a in asked]
    sizes = np.array([len(a.candidates) for a in asked])
    module = lru_cache(lambda: role.trained(adapter))  # a process that only merges loads no model

    def keys() -> list[str]:
        common = fingerprint([code_sha256(), *settings])
        return [fingerprint([common, a.history, a.candidates]) for a in asked]

    def members(shape: tuple[int, ...]) -> int:
        return max(1, min(SHARD_SEQUENCES, params.batch_tokens // shape[0]))

    def batches(places: IntArray) -> list[IntArray]:
        if shards.kept:
            return alike(places, list(zip(lengths, sizes.tolist(), strict=True)), members)
        # Longest first, so that batches pad little.
        order = np.argsort([-lengths[p] for p in places], kind="stable")
        return [places[order[start : start + SHARD_SEQUENCES]] for start in range(0, len(order), SHARD_SEQUENCES)]

    def read(places: IntArray) -> Arrays:
        chosen = [asked[p] for p in places]
        sequences = [questions(a.history, a.candidates, np.zeros_like(a.candidates), role) for a in chosen]
        whole = sequences
        if shards.kept:
            whole = sequences + sequences[:1] * (members((lengths[places[0]],)) - len(sequences))
        found = read_margins(role, module(), whole, batch_tokens=params.batch_tokens)
        return {"margins": np.concatenate(found[: len(sequences)])}

    started = time.perf_counter()
    work = fingerprint([*settings, str(shards.kept), *(part for a in asked for part in (a.history, a.candidates))])
    found, before = shards.of_each(work, Wanted(keys, sizes, batches), read)
    seconds = time.perf_counter() - started
    facts: dict[str, Any] = {**before, **role.device.usage}
    if not any(before.values()):
        facts["pairs_per_s"] = round(int(sizes.sum()) / seconds, 1)
    log.info("score: %d pairs in %.1f s", sizes.sum(), seconds)
    return np.split(found["margins"], np.cumsum(sizes)[:-1]), facts


def _table(asked: list[Asked], margins: list[FloatArray], items: pd.DataFrame, *, temperature: float) -> pd.DataFrame:
    """One row per candidate: schema.SCORED and `rank`, sorted by user, source and item."""
    repeats = [len(a.candidates) for a in asked]
    candidates = np.concatenate([a.candidates for a in asked])
    table = pd.DataFrame(
        {
            "user_id": np.repeat(np.array([a.user for a in asked], dtype=object), repeats),
            "item_id": items["item_id"].to_numpy(dtype=object)[candidates],
            "source": np.repeat(np.array([a.source for a in asked], dtype=object), repeats),
            "p_yes": p_yes(np.concatenate(margins), temperature),
            "rank": np.concatenate([a.ranks for a in asked]),
        }
    ).astype({**SCORED, "rank": "int32"})
    return table.sort_values(["user_id", "source", "item_id"], ignore_index=True)


def _calibration(held_out: dict[str, Any], task: Task, table: pd.DataFrame) -> dict[str, Any]:
    """Facts of the discriminator on held-out users, and of what was scored."""
    return {
        **{k: v for k, v in held_out.items() if k not in ("reliability", "auc_by_negatives")},
        "template": task.template,
        "template_sha256": task.template_sha256,
        "n_real": int((table["source"] == SOURCE_REAL).sum()),
        "n_synthetic": int((table["source"] == SOURCE_SYNTHETIC).sum()),
    }


def _synthetic_questions(
    synthetic: pd.DataFrame, source: str, items: pd.DataFrame, by_user: dict[str, IntArray], max_history: int
) -> Iterable[Asked]:
    indices = item_indices(synthetic["item_id"], items, where="synthetic.parquet")
    ranks = synthetic["rank"].to_numpy(dtype=np.int64)
    early = synthetic["held_out"].to_numpy()
    for user, rows in synthetic.groupby(USER_ID, sort=True).indices.items():
        taken = by_user[str(user)]
        for name, known, part in ((source, taken, ~early[rows]), (SOURCE_HELD_OUT, taken[:-1], early[rows])):
            if part.any():
                chosen = rows[part]
                yield Asked(str(user), name, known[-max_history:], indices[chosen], ranks[chosen])


def _real_questions(
    by_user: dict[str, IntArray], max_history: int, params: ScoreParams, seed: int, *, apart: bool
) -> Iterable[Asked]:
    """Runs of neighbouring real items with the context around them; a budget takes one random run per user.

    Where results are kept (`apart`), what is drawn for a user depends on this user alone.
    """
    rng = np.random.default_rng(seed)
    users = [user for user, items in by_user.items() if len(items) >= 2]
    for user in sample_users(users, params.max_real_users, seed=seed, apart=apart):
        items = by_user[user]
        # A run leaves at least one item of context, and at most max_history items share one encoding.
        size = min(params.real_rows_per_user or max_history, max_history, len(items) - 1)
        starts: Iterable[int] = range(0, len(items), size)
        if params.real_rows_per_user:
            n = len(items) - size + 1
            starts = [number_of(user, n, seed=seed) if apart else int(rng.integers(0, n))]
        for start in starts:
            run = items[start : start + size]
            before, after = items[:start][-max_history:], items[start + len(run) :]
            history = np.concatenate([before, after[: max_history - len(before)]])
            yield Asked(user, SOURCE_REAL, history, run, np.zeros(len(run), dtype=np.int64))
