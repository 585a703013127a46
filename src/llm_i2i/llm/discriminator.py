"""The discriminator: would this user take this item, Yes or No (LLM-I2I, arXiv 2512.21595, section 3.3).

Differs from the paper: the loss is the negative log-likelihood of the answer among Yes and No only (p_yes is this same
softmax), and several questions about one history share its encoding (`batches.packed`): same results, a fraction of
the tokens.
"""

import logging
import time
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import histories_by_user, without_rows
from llm_i2i.files import write_json
from llm_i2i.llm.calibration import auc_by_bucket, auc_interval, held_out_report
from llm_i2i.llm.engine.loss import logits_over_tokens
from llm_i2i.llm.engine.training import TrainingSetup, train_model
from llm_i2i.llm.negatives import Sampler, draw_moment, held_out_and_fit, n_positives, negative_sampler
from llm_i2i.llm.questions import HELD_OUT_FILE, NO, YES, questions, read_margins
from llm_i2i.llm.role import LlmSetup, Task, discriminator_role
from llm_i2i.params import Negatives, TrainDiscriminatorParams

log = logging.getLogger(__name__)
JUDGED_ALWAYS: tuple[Negatives, ...] = ("random", "popularity")  # so that trainings on any kind compare


class Asked(NamedTuple):
    """Questions about one user's history.

    Attributes:
        user: User id.
        history: Item indices in time order.
        candidates: Item indices.
        origin: int64 (n_candidates,): 0 = taken by the user, k = from the k-th sampler.
    """

    user: str
    history: IntArray
    candidates: IntArray
    origin: IntArray


def sampled_questions(
    sequences: dict[str, IntArray], params: TrainDiscriminatorParams, *, samplers: SequenceOf[Sampler], seed: int
) -> list[Asked]:
    """Questions about each user: a random moment of the history, the items taken next, and negatives.

    Args:
        sequences: Training items in time order, of the users to ask about.
        params: Section train_discriminator.
        samplers: Each gives `negatives_per_positive` negatives per positive.
        seed: Of moments and negatives.

    Returns:
        One per user; users with fewer than two items give none.
    """
    rng = np.random.default_rng(seed)
    found = []
    for user, items in sequences.items():
        if len(items) < 2:
            continue
        moment = draw_moment(items, params, rng)
        positives = items[moment : moment + n_positives(params)]
        size = len(positives) * params.negatives_per_positive
        parts = [positives, *(draw(items, size, rng) for draw in samplers)]
        origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        # Blocks do not see each other, so their order carries nothing.
        history = items[max(0, moment - params.max_history) : moment]
        found.append(Asked(user, history, np.concatenate(parts), origin))
    return found


def train_discriminator(
    *,
    train: pd.DataFrame,
    held_out: pd.DataFrame,
    setup: LlmSetup,
    params: TrainDiscriminatorParams,
    out: Path,
    checkpoints: Path,
) -> dict[str, Any]:
    """Tune the discriminator; write its weights, `task.json`, `training.csv` and `held_out.json` into `out`.

    A share of the users is held out of training: their questions give the AUC and the calibration.

    Args and returns: as of `generator.train_generator`; the seed also draws users, moments and negatives.

    Raises:
        ParamsError: The template does not exist.
        DataError: Too few users to train and to hold some out.
        TrainingError: The training diverges.
    """
    role = discriminator_role(setup, Task.of(params))
    by_user = histories_by_user(without_rows(train, held_out), setup.items)
    judged, fit = held_out_and_fit(by_user, params, seed=setup.seed)
    # The kind trained on comes first: calibration and the headline AUC are about it.
    kinds = tuple(dict.fromkeys((params.negatives, *JUDGED_ALWAYS)))
    samplers = [negative_sampler(kind, by_user, len(setup.items), params) for kind in kinds]
    asked = [
        sampled_questions({user: by_user[user] for user in users}, params, samplers=used, seed=seed)
        for users, used, seed in ((fit, samplers[:1], setup.seed), (judged, samplers, setup.seed + 1))
    ]
    sequences, judged_sequences = (
        [questions(a.history, a.candidates, _labels(a.origin), role) for a in part] for part in asked
    )
    left_out = set(judged)
    known = {user: taken for user, taken in by_user.items() if user not in left_out}
    module = role.fresh(params, known)

    def read() -> FloatArray:
        return np.concatenate(read_margins(role, module, judged_sequences, batch_tokens=params.batch_tokens))

    untrained = read()
    started = time.perf_counter()
    answers = torch.tensor(role.prompt.answers, device=role.device.device)
    how = TrainingSetup(
        params, role.device, setup.seed, role.catalogue.end_id, logits_over_tokens(answers), "train_discriminator"
    )
    training_log = train_model(module, sequences, how, checkpoints=checkpoints)
    seconds = time.perf_counter() - started
    margins = read()
    bucket = setup.items["bucket"].to_numpy(dtype=str)
    report = _judge(_Answers(asked[1], margins, untrained), kinds, bucket, seed=setup.seed)
    facts = role.save(module, training_log, out)
    write_json(report, out / HELD_OUT_FILE)
    log.info("train_discriminator: held-out AUC %(auc).3f [%(auc_low).3f, %(auc_high).3f]", report)
    facts["questions"] = int(sum(len(s.labels) for s in sequences))
    return {**facts, **role.device.usage, **training_log.facts(seconds)}


def _labels(origin: IntArray) -> IntArray:
    return np.where(origin == 0, YES, NO)


class _Answers(NamedTuple):
    """What was asked, and the margins after and before training."""

    asked: list[Asked]
    margins: FloatArray
    untrained: FloatArray


def _judge(
    answers: _Answers, kinds: tuple[Negatives, ...], bucket: npt.NDArray[np.str_], *, seed: int
) -> dict[str, Any]:
    """Results on held-out users: calibration against the kind trained on, AUC against every kind and by bucket."""
    asked, margins, untrained = answers
    origin = np.concatenate([a.origin for a in asked])
    group = np.repeat(np.arange(len(asked)), [len(a.origin) for a in asked])
    buckets = bucket[np.concatenate([a.candidates for a in asked])]
    label = _labels(origin)
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
