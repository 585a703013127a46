"""Yes/No questions as token sequences, and reading the model's answers."""

import numpy as np
import torch
from tqdm import tqdm

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.errors import BaseModelError, TrainingError
from llm_i2i.llm.engine.batches import Sequence, collate, packed, plan_batches
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.prompts import DiscriminatorPrompt, recent_that_fit
from llm_i2i.llm.role import Role

HELD_OUT_FILE = "held_out.json"
NO, YES = 0, 1


def questions(history: IntArray, candidates: IntArray, labels: IntArray, role: Role[DiscriminatorPrompt]) -> Sequence:
    """Several candidates asked about after one history.

    Where the question exceeds the context, the oldest items of the history are left out; candidates and the place of
    the answer are never cut.

    Args:
        history: Item indices in time order; the candidates are not among them.
        candidates: Item indices.
        labels: int64 (n_candidates,): YES or NO.
        role: The discriminator: its words, the items' token ids and the positions that its model knows.

    Raises:
        BaseModelError: A question does not fit even without a history.
    """
    prompt, catalogue = role.prompt, role.catalogue
    history = _fitting(history, candidates, role)
    beginning = np.concatenate([prompt.prefix, catalogue.concat(history), prompt.between])
    # A candidate stands without its line feed; the suffix follows.
    blocks = [np.concatenate([catalogue.words(int(c)), prompt.suffix]) for c in candidates]
    return packed(beginning, blocks, labels)


def question_length(history: IntArray, candidates: IntArray, role: Role[DiscriminatorPrompt]) -> int:
    """Tokens of what `questions` makes of the same, a tenth of the time; raises as it does."""
    fixed = len(role.prompt.prefix) + len(role.prompt.between)
    history = _fitting(history, candidates, role)
    return int(fixed + role.catalogue.lengths[history].sum() + _block_lengths(candidates, role).sum())


def _block_lengths(candidates: IntArray, role: Role[DiscriminatorPrompt]) -> IntArray:
    lengths: IntArray = role.catalogue.lengths[candidates] - role.catalogue.terminated + len(role.prompt.suffix)
    return lengths


def _fitting(history: IntArray, candidates: IntArray, role: Role[DiscriminatorPrompt]) -> IntArray:
    """The end of the history for which the context has room."""
    # The positions of every block continue from the end of the beginning, so the longest block decides.
    blocks = _block_lengths(candidates, role)
    longest = int(blocks.argmax())
    room = role.context - len(role.prompt.prefix) - len(role.prompt.between) - int(blocks[longest])
    if room < 0:
        raise BaseModelError(
            "context length",
            f"the question about item {int(candidates[longest])} has {role.context - room} tokens without a history",
            f"at most {role.context}",
            "shorten the item's title or choose another `base_model`",
        )
    return recent_that_fit(history, role.catalogue.lengths, room)


def read_margins(
    role: Role[DiscriminatorPrompt], module: TargetLogits, sequences: list[Sequence], *, batch_tokens: int
) -> list[FloatArray]:
    """logit_yes - logit_no of every question of every sequence.

    Args:
        role: The discriminator.
        module: Its model; left in eval mode.
        sequences: From `questions`.
        batch_tokens: Tokens per batch, padding included.

    Returns:
        float64 (n_questions,) per sequence, in the given order.

    Raises:
        TrainingError: An answer is no finite number.
    """
    margins: list[FloatArray] = [np.empty(0)] * len(sequences)
    device = role.device.device
    columns = torch.tensor(role.prompt.answers, device=device)
    module.eval()
    batches = plan_batches([len(s) for s in sequences], batch_tokens)
    read: list[torch.Tensor] = []
    with torch.no_grad():
        for indices in tqdm(batches, unit="batch", disable=None, desc="score"):
            batch = collate([sequences[i] for i in indices], role.catalogue.end_id).to(device)
            logits = module(batch.inputs, batch.rows, batch.positions, columns)
            # Left on the device until all is asked: while a GPU works, the next batches are made.
            read.append((logits[:, YES] - logits[:, NO]).double())
    for indices, margin in zip(batches, read, strict=True):
        if not margin.isfinite().all():
            raise TrainingError(
                "discriminator",
                "answers with numbers that are not finite",
                "a model whose training has not diverged",
                "lower the learning rate that it was trained with, or choose another base model",
            )
        ends = np.cumsum([len(sequences[i].positions) for i in indices])
        for i, part in zip(indices, np.split(margin.cpu().numpy(), ends[:-1]), strict=True):
            margins[i] = part
    return margins
