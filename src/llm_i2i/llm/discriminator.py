"""The discriminator: would this user take this item, Yes or No (LLM-I2I, arXiv 2512.21595, section 3.3).

Differs from the paper: the loss is the negative log-likelihood of the answer among Yes and No only (p_yes is that
very softmax), and several questions about one history share its encoding (`batches.packed`): same results, a
fraction of the tokens.
"""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from llm_i2i.errors import DataError
from llm_i2i.llm.batches import IntArray, Sequence, collate, packed, plan_batches
from llm_i2i.llm.calibration import FloatArray, held_out_report, p_yes
from llm_i2i.llm.device import Runtime, peak_memory_mb, resolve_runtime
from llm_i2i.llm.generator import read_task, write_task
from llm_i2i.llm.histories import item_indices, sample_keys, user_sequences
from llm_i2i.llm.lm import (
    TargetLogits,
    add_adapter,
    load_for_inference,
    load_quantized,
    load_tokenizer,
    read_manifest,
)
from llm_i2i.llm.prompts import DiscriminatorPrompt, discriminator_prompt, load_template
from llm_i2i.llm.qlora import discard_checkpoints, process_facts, save_adapter, train_lora
from llm_i2i.llm.trie import Catalogue, tokenize_catalogue
from llm_i2i.params import RuntimeParams, ScoreParams, TrainDiscriminatorParams
from llm_i2i.schema import SCORED, SOURCE_REAL, SOURCE_SYNTHETIC

log = logging.getLogger(__name__)
HELD_OUT_FILE = "held_out.json"
NO, YES = 0, 1


def questions(
    history: IntArray,
    candidates: IntArray,
    labels: IntArray,
    prompt: DiscriminatorPrompt,
    catalogue: Catalogue,
) -> Sequence:
    """Several candidates asked about after one history.

    Args:
        history: Item indices in time order; the candidates are not among them.
        candidates: Item indices.
        labels: int64 (n_candidates,): YES or NO.
        prompt: The words around.
        catalogue: Token ids of the items.
    """
    beginning = np.concatenate([prompt.prefix, catalogue.concat(history), prompt.between])
    # A candidate stands without its line feed; the suffix follows.
    blocks = [np.concatenate([catalogue.item(int(c))[:-1], prompt.suffix]) for c in candidates]
    return packed(beginning, blocks, labels)


def random_negatives(own: IntArray, n_items: int, size: int, rng: np.random.Generator) -> IntArray:
    """Distinct items, uniform over the catalogue, outside the user's own *training* items.

    Validation and test items are not excluded: knowing them here would leak them.

    Args:
        own: The user's training items.
        n_items: Catalogue size.
        size: How many; fewer come if the catalogue does not have them.
        rng: Random state.
    """
    open_items = np.setdiff1d(np.arange(n_items), own, assume_unique=False)
    return np.sort(rng.choice(open_items, size=min(size, len(open_items)), replace=False))


def training_questions(
    sequences: dict[str, IntArray],
    users: list[str],
    params: TrainDiscriminatorParams,
    *,
    n_items: int,
    seed: int,
) -> list[tuple[str, IntArray, IntArray, IntArray]]:
    """One question set a user: a random moment of the history, the items taken next, and random others.

    Args:
        sequences: Users' training items in time order.
        users: Whose.
        params: Section train_discriminator.
        n_items: Catalogue size.
        seed: Of moments and negatives.

    Returns:
        (user, history, candidates, labels) tuples; users with fewer than two items give none.
    """
    rng = np.random.default_rng(seed)
    n_positives = max(1, params.candidates_per_history // (1 + params.negatives_per_positive))
    found = []
    for user in users:
        items = sequences[user]
        if len(items) < 2:
            continue
        moment = int(rng.integers(1, max(2, len(items) - n_positives + 1)))
        positives = items[moment : moment + n_positives]
        negatives = random_negatives(items, n_items, len(positives) * params.negatives_per_positive, rng)
        candidates = np.concatenate([positives, negatives])
        labels = np.repeat([YES, NO], [len(positives), len(negatives)])
        # Blocks do not see each other, so their order carries nothing.
        found.append((user, items[max(0, moment - params.max_history) : moment], candidates, labels))
    return found


def read_margins(
    module: TargetLogits,
    sequences: list[Sequence],
    answers: tuple[int, int],
    *,
    batch_tokens: int,
    runtime: Runtime,
    pad_id: int,
) -> list[FloatArray]:
    """logit_yes - logit_no of every question of every sequence.

    Args:
        module: The discriminator.
        sequences: From `questions`.
        answers: Token ids of No and Yes.
        batch_tokens: Tokens a batch, padding included.
        runtime: Device.
        pad_id: Token id of padding.

    Returns:
        float64 (n_questions,) a sequence, in the given order.
    """
    margins: list[FloatArray] = [np.empty(0)] * len(sequences)
    columns = torch.tensor(answers, device=runtime.device)
    with torch.no_grad():
        for indices in tqdm(
            plan_batches([len(s) for s in sequences], batch_tokens), unit="batch", disable=None, desc="score"
        ):
            batch = collate([sequences[i] for i in indices], pad_id).to(runtime.device)
            logits = module(batch.inputs, batch.rows, batch.positions, columns)
            margin = (logits[:, YES] - logits[:, NO]).double().cpu().numpy()
            ends = np.cumsum([len(sequences[i].positions) for i in indices])
            for i, part in zip(indices, np.split(margin, ends[:-1]), strict=True):
                margins[i] = part
    return margins


def train_discriminator(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    base_model: Path,
    params: TrainDiscriminatorParams,
    runtime: RuntimeParams,
    seed: int,
    out: Path,
    checkpoints: Path,
) -> dict[str, Any]:
    """QLoRA-tune the discriminator; write adapter, `task.json`, `training.csv` and `held_out.json` into `out`.

    A share of the users is held out of training: their questions give the AUC and the calibration.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        items: Catalogue (schema.ITEMS).
        base_model: Output folder of stage base_model.
        params: Section train_discriminator.
        runtime: Section runtime.
        seed: Chooses users, moments and negatives, initialises the adapter, orders batches.
        out: Folder of the adapter.
        checkpoints: Folder of resumable states.

    Returns:
        Runtime facts.

    Raises:
        ParamsError: The template does not exist.
        DataError: Too few users to train and to hold some out.
    """
    device = resolve_runtime(runtime)
    template, template_sha256 = load_template(params.template, "discriminator")
    tokenizer = load_tokenizer(base_model)
    prompt = discriminator_prompt(tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = tokenize_catalogue(items["text"].tolist(), tokenizer)
    by_user = user_sequences(train, items)
    held_out, fit = _hold_out([u for u in by_user if len(by_user[u]) >= 2], params, seed)
    module = TargetLogits(
        add_adapter(
            load_quantized(base_model, device), params, seed=seed, name=str(read_manifest(base_model)["id"])
        )
    )
    answers = (prompt.no_id, prompt.yes_id)
    fit_set = training_questions(by_user, fit, params, n_items=len(items), seed=seed)
    held_out_set = training_questions(by_user, held_out, params, n_items=len(items), seed=seed + 1)
    sequences, held_out_sequences = (
        [questions(h, c, y, prompt, catalogue) for _, h, c, y in chosen] for chosen in (fit_set, held_out_set)
    )
    reading = {"batch_tokens": params.batch_tokens, "runtime": device, "pad_id": catalogue.end_id}
    label = np.concatenate([y for *_, y in held_out_set])
    group = np.repeat(np.arange(len(held_out_set)), [len(y) for *_, y in held_out_set])
    module.eval()
    untrained = np.concatenate(read_margins(module, held_out_sequences, answers, **reading))  # type: ignore[arg-type]
    started = time.perf_counter()
    training_log = train_lora(
        module,
        sequences,
        params=params,
        runtime=device,
        seed=seed,
        pad_id=catalogue.end_id,
        checkpoints=checkpoints,
        columns=list(answers),
    )
    seconds = time.perf_counter() - started
    module.eval()
    margins = np.concatenate(read_margins(module, held_out_sequences, answers, **reading))  # type: ignore[arg-type]
    report = held_out_report(margins, label, group, seed=seed)
    report["auc_untrained"] = held_out_report(untrained, label, group, seed=seed)["auc"]
    sha256 = save_adapter(module.model, out)
    training_log.write(out / "training.csv")
    (out / HELD_OUT_FILE).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_task(
        out,
        {"template": params.template, "template_sha256": template_sha256, "max_history": params.max_history},
    )
    discard_checkpoints(checkpoints)
    log.info("train_discriminator: held-out AUC %(auc).3f [%(auc_low).3f, %(auc_high).3f]", report)
    facts = {"adapter_sha256": sha256, "questions": int(sum(len(s.labels) for s in sequences))}
    return {**facts, **device.facts, **peak_memory_mb(device), **process_facts(seconds, training_log)}


def _hold_out(users: list[str], params: TrainDiscriminatorParams, seed: int) -> tuple[list[str], list[str]]:
    """Users held out (at most as many as are trained on) and users to train on, both seeded samples."""
    order = [users[i] for i in np.random.default_rng(seed).permutation(len(users))]
    size = round(params.held_out_share * len(order))
    if params.max_histories:
        size = min(
            size, max(1, round(params.held_out_share * params.max_histories / (1 - params.held_out_share)))
        )
    held_out, rest = sorted(order[:size]), sorted(order[size:])
    if not held_out or not rest:
        raise DataError(
            "train_discriminator",
            f"{len(users)} users with at least two training interactions",
            f"enough to hold {params.held_out_share:.0%} of them out and to train on the rest",
        )
    return held_out, sample_keys(rest, params.max_histories, seed=seed)


def score(
    *,
    train: pd.DataFrame,
    synthetic: pd.DataFrame,
    items: pd.DataFrame,
    base_model: Path,
    adapter: Path,
    params: ScoreParams,
    runtime: RuntimeParams,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """p_yes of every synthetic row and of real training rows.

    A synthetic item is asked about after the user's last training items. Real items are asked about in runs of
    neighbours, after the items before the run (and, where those are too few, those after it): never after
    themselves.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        synthetic: schema.SYNTHETIC.
        items: Catalogue (schema.ITEMS).
        base_model: Output folder of stage base_model.
        adapter: Output folder of stage train_discriminator.
        params: Section score.
        runtime: Section runtime.
        seed: Samples the real rows.

    Returns:
        Rows (schema.SCORED, and `rank`: the synthetic rank, 0 for real rows); calibration facts; runtime facts.
    """
    device = resolve_runtime(runtime)
    task = read_task(adapter)
    template, _ = load_template(task["template"], "discriminator")
    tokenizer = load_tokenizer(base_model)
    prompt = discriminator_prompt(tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = tokenize_catalogue(items["text"].tolist(), tokenizer)
    by_user = user_sequences(train, items)
    held_out = json.loads((adapter / HELD_OUT_FILE).read_text(encoding="utf-8"))
    asked = pd.DataFrame(
        [
            *_synthetic_questions(synthetic, items, by_user, task["max_history"]),
            *_real_questions(by_user, task["max_history"], params, seed),
        ],
        columns=["user_id", "source", "history", "candidates", "ranks"],
    )
    sequences = [
        questions(h, c, np.zeros(len(c), dtype=np.int64), prompt, catalogue)
        for h, c in zip(asked["history"], asked["candidates"], strict=True)
    ]
    module = TargetLogits(load_for_inference(base_model, adapter, device))
    started = time.perf_counter()
    margins = read_margins(
        module,
        sequences,
        (prompt.no_id, prompt.yes_id),
        batch_tokens=params.batch_tokens,
        runtime=device,
        pad_id=catalogue.end_id,
    )
    seconds = time.perf_counter() - started
    table = asked[["user_id", "source", "candidates", "ranks"]].assign(
        margin=pd.Series(margins, dtype=object)
    )
    table = table.explode(["candidates", "ranks", "margin"], ignore_index=True)
    table["p_yes"] = p_yes(table["margin"].to_numpy(dtype=np.float64), held_out["temperature"])
    table["item_id"] = items["item_id"].to_numpy(dtype=object)[table["candidates"].to_numpy(dtype=np.int64)]
    table = table.rename(columns={"ranks": "rank"})[[*SCORED, "rank"]].astype({**SCORED, "rank": "int32"})
    table = table.sort_values(["user_id", "source", "item_id"], ignore_index=True)
    calibration = {k: v for k, v in held_out.items() if k != "reliability"}
    calibration["n_real"] = int((table["source"] == SOURCE_REAL).sum())
    calibration["n_synthetic"] = int((table["source"] == SOURCE_SYNTHETIC).sum())
    facts = {"pairs_per_s": round(len(table) / seconds, 1), **device.facts, **peak_memory_mb(device)}
    log.info("score: %d pairs, %.1f pairs/s", len(table), facts["pairs_per_s"])
    return table, calibration, facts


_Asked = tuple[str, str, IntArray, IntArray, IntArray]


def _synthetic_questions(
    synthetic: pd.DataFrame, items: pd.DataFrame, by_user: dict[str, IntArray], max_history: int
) -> Iterable[_Asked]:
    indices = item_indices(items, synthetic["item_id"])
    ranks = synthetic["rank"].to_numpy(dtype=np.int64)
    for user, rows in synthetic.groupby("user_id", sort=True).indices.items():
        yield str(user), SOURCE_SYNTHETIC, by_user[str(user)][-max_history:], indices[rows], ranks[rows]


def _real_questions(
    by_user: dict[str, IntArray], max_history: int, params: ScoreParams, seed: int
) -> Iterable[_Asked]:
    """Runs of neighbouring real items with the context around them; a budget takes one random run a user."""
    rng = np.random.default_rng(seed)
    for user, items in by_user.items():
        if len(items) < 2:
            continue
        # A run leaves at least one item of context and shares one encoding among at most max_history items.
        size = min(params.real_rows_per_user or max_history, max_history, len(items) - 1)
        starts: Iterable[int] = range(0, len(items), size)
        if params.real_rows_per_user:
            starts = [int(rng.integers(0, len(items) - size + 1))]
        for start in starts:
            run = items[start : start + size]
            before, after = items[:start][-max_history:], items[start + len(run) :]
            history = np.concatenate([before, after[: max_history - len(before)]])
            yield user, SOURCE_REAL, history, run, np.zeros(len(run), dtype=np.int64)
