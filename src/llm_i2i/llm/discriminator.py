"""The discriminator: would this user take this item, Yes or No (LLM-I2I, arXiv 2512.21595, section 3.3).

Differs from the paper: the loss is the negative log-likelihood of the answer among Yes and No only (p_yes is that
very softmax), and several questions about one history share its encoding (`batches.packed`): same results, a
fraction of the tokens.
"""

import json
import logging
import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import histories_by_user, item_indices
from llm_i2i.errors import DataError
from llm_i2i.llm.calibration import auc_by_bucket, auc_interval, held_out_report
from llm_i2i.llm.engine.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.engine.loss import over_tokens
from llm_i2i.llm.engine.models import TargetLogits, context_length, load_for_training, with_vectors
from llm_i2i.llm.engine.training import process_facts, save_model, train_model
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.moments import draw_moment, held_out_and_fit, n_positives
from llm_i2i.llm.negatives import Sampler, negative_sampler
from llm_i2i.llm.prompts import discriminator_prompt, load_template
from llm_i2i.llm.questions import HELD_OUT_FILE, NO, YES, questions, read_margins
from llm_i2i.llm.task import adapter_sha256, write_task
from llm_i2i.params import OF_THE_GENERATOR, Negatives, RuntimeParams, TrainDiscriminatorParams
from llm_i2i.schema import ITEM_ID, USER_ID

log = logging.getLogger(__name__)
JUDGED_ALWAYS: tuple[Negatives, ...] = ("random", "popularity")  # so that trainings on any kind compare


def sampled_questions(
    sequences: dict[str, IntArray],
    users: list[str],
    params: TrainDiscriminatorParams,
    *,
    samplers: SequenceOf[Sampler],
    seed: int,
    moments: Mapping[str, int] | None = None,
) -> list[tuple[str, IntArray, IntArray, IntArray]]:
    """One question set a user: a random moment of the history, the items taken next, and negatives.

    Args:
        sequences: Users' training items in time order.
        users: Whose.
        params: Section train_discriminator.
        samplers: Each gives `negatives_per_positive` negatives a positive.
        seed: Of moments and negatives.
        moments: Users' moments, where they are given: those at which the generator was asked.

    Returns:
        (user, history, candidates, origin) tuples; origin, int64: 0 = taken by the user, k = from the k-th
        sampler. Users with fewer than two items give none.
    """
    rng = np.random.default_rng(seed)
    found = []
    for user in users:
        items = sequences[user]
        if len(items) < 2:
            continue
        moment = draw_moment(items, params, rng)
        moment = moment if moments is None else moments.get(user, moment)
        positives = items[moment : moment + n_positives(params)]
        size = len(positives) * params.negatives_per_positive
        parts = [positives, *(draw(user, items, size, rng) for draw in samplers)]
        origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        # Blocks do not see each other, so their order carries nothing.
        history = items[max(0, moment - params.max_history) : moment]
        found.append((user, history, np.concatenate(parts), origin))
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
    near_misses: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Tune the discriminator; write its weights, `task.json`, `training.csv` and `held_out.json` into `out`.

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
        checkpoints: Folder of resumable states; the caller removes it once the output is in place.
        near_misses: Near misses of the generator (schema.NEAR_MISSES), for the negatives that are of them.

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
    catalogue = vocabulary.catalogue
    by_user = histories_by_user(train, items)
    held_out, fit = held_out_and_fit(by_user, params, seed=seed)
    left_out = set(held_out)
    known = {user: taken for user, taken in by_user.items() if user not in left_out}
    new_tokens = with_vectors(vocabulary.new_tokens, items, known, base_model=base_model, seed=seed)
    module = TargetLogits(load_for_training(base_model, params, device, seed=seed, new_tokens=new_tokens))
    answers = (prompt.no_id, prompt.yes_id)
    # The kind trained on comes first: it is what calibration and the headline AUC are about.
    kinds = tuple(dict.fromkeys((params.negatives, *JUDGED_ALWAYS)))
    moments, misses = _by_user(near_misses, items, params.negatives)
    samplers = [negative_sampler(kind, by_user, len(items), params, misses) for kind in kinds]
    fit_set = sampled_questions(by_user, fit, params, samplers=samplers[:1], seed=seed, moments=moments)
    held_out_set = sampled_questions(
        by_user, held_out, params, samplers=samplers, seed=seed + 1, moments=moments
    )
    context = context_length(base_model)
    sequences, held_out_sequences = (
        [
            questions(h, c, np.where(o == 0, YES, NO), prompt, catalogue, context=context)
            for _, h, c, o in chosen
        ]
        for chosen in (fit_set, held_out_set)
    )
    reading = {"batch_tokens": params.batch_tokens, "runtime": device, "pad_id": catalogue.end_id}
    module.eval()
    untrained = np.concatenate(read_margins(module, held_out_sequences, answers, **reading))  # type: ignore[arg-type]
    started = time.perf_counter()
    training_log = train_model(
        module,
        sequences,
        params=params,
        runtime=device,
        seed=seed,
        pad_id=catalogue.end_id,
        checkpoints=checkpoints,
        classes=over_tokens(torch.tensor(answers, device=device.device)),
    )
    seconds = time.perf_counter() - started
    module.eval()
    margins = np.concatenate(read_margins(module, held_out_sequences, answers, **reading))  # type: ignore[arg-type]
    report = _judge(margins, untrained, held_out_set, kinds, items["bucket"].to_numpy(dtype=str), seed=seed)
    save_model(module.model, out)
    training_log.write(out / "training.csv")
    (out / HELD_OUT_FILE).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_task(
        out,
        {"template": params.template, "template_sha256": template_sha256, "max_history": params.max_history},
    )
    log.info("train_discriminator: held-out AUC %(auc).3f [%(auc_low).3f, %(auc_high).3f]", report)
    facts = {"adapter_sha256": adapter_sha256(out), "questions": int(sum(len(s.labels) for s in sequences))}
    return {**facts, **device.facts, **peak_memory_mb(device), **process_facts(seconds, training_log)}


def _by_user(
    near_misses: pd.DataFrame | None, items: pd.DataFrame, kind: Negatives
) -> tuple[dict[str, int], dict[str, IntArray]]:
    """Users' moments and near misses (item indices).

    Raises:
        DataError: The negatives are near misses of the generator, and there are none.
    """
    if near_misses is None or near_misses.empty:
        if kind in OF_THE_GENERATOR:
            raise DataError(
                f"train_discriminator.negatives: {kind}",
                "no near misses of the generator",
                "rows of stage mine_negatives",
                "run `dvc repro mine_negatives`",
            )
        return {}, {}
    by_user = near_misses.groupby(USER_ID, sort=True)
    misses = {
        str(user): item_indices(rows[ITEM_ID], items, where="near_misses.parquet") for user, rows in by_user
    }
    return {str(user): int(moment) for user, moment in by_user["moment"].first().items()}, misses


def _judge(
    margins: FloatArray,
    untrained: FloatArray,
    asked: list[tuple[str, IntArray, IntArray, IntArray]],
    kinds: tuple[Negatives, ...],
    bucket: npt.NDArray[np.str_],
    *,
    seed: int,
) -> dict[str, Any]:
    """What the held-out users say: calibration against the kind trained on, AUC against every kind and by bucket."""
    origin = np.concatenate([o for *_, o in asked])
    group = np.repeat(np.arange(len(asked)), [len(o) for *_, o in asked])
    buckets = bucket[np.concatenate([c for _, _, c, _ in asked])]
    label = np.where(origin == 0, YES, NO)
    of_kind = {kind: (origin == 0) | (origin == number) for number, kind in enumerate(kinds, start=1)}
    rows = of_kind[kinds[0]]
    report = held_out_report(margins[rows], label[rows], group[rows], seed=seed)
    report["negatives"] = kinds[0]
    report["auc_untrained"] = auc_interval(untrained[rows], label[rows], group[rows], seed=seed)["auc"]
    report["auc_by_negatives"] = {
        kind: auc_by_bucket(margins[rows], label[rows], group[rows], buckets[rows], seed=seed)
        for kind, rows in of_kind.items()
    }
    return report
