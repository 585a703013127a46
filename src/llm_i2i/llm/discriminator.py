"""The discriminator: would this user take this item, Yes or No (LLM-I2I, arXiv 2512.21595, section 3.3).

Differs from the paper: the loss is the negative log-likelihood of the answer among Yes and No only (p_yes is that
very softmax), and several questions about one history share its encoding (`batches.packed`): same results, a
fraction of the tokens.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.errors import DataError
from llm_i2i.llm.batches import IntArray
from llm_i2i.llm.calibration import held_out_report
from llm_i2i.llm.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.histories import sample_keys, user_sequences
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.lm import (
    TargetLogits,
    add_adapter,
    load_quantized,
    read_manifest,
)
from llm_i2i.llm.prompts import discriminator_prompt, load_template
from llm_i2i.llm.qlora import discard_checkpoints, process_facts, save_adapter, train_lora
from llm_i2i.llm.questions import HELD_OUT_FILE, NO, YES, questions, read_margins
from llm_i2i.llm.task import write_task
from llm_i2i.params import RuntimeParams, TrainDiscriminatorParams

log = logging.getLogger(__name__)


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


def train_discriminator(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    identifiers: Identifiers,
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
        identifiers: The items' names.
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
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=seed)
    prompt = discriminator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue, new_tokens = vocabulary.catalogue, vocabulary.new_tokens
    by_user = user_sequences(train, items)
    held_out, fit = _hold_out([u for u in by_user if len(by_user[u]) >= 2], params, seed)
    name = str(read_manifest(base_model)["id"])
    module = TargetLogits(
        add_adapter(
            load_quantized(base_model, device, training=True, new_tokens=new_tokens),
            params,
            seed=seed,
            name=name,
            new_tokens=new_tokens,
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
