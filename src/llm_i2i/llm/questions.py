"""Yes/No questions as token sequences, and reading the model's answers."""

import numpy as np
import torch
from tqdm import tqdm

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.errors import BaseModelError
from llm_i2i.llm.engine.batches import Sequence, collate, packed, plan_batches
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.trie import Catalogue
from llm_i2i.llm.prompts import DiscriminatorPrompt, recent_that_fit

HELD_OUT_FILE = "held_out.json"
NO, YES = 0, 1


def questions(
    history: IntArray,
    candidates: IntArray,
    labels: IntArray,
    prompt: DiscriminatorPrompt,
    catalogue: Catalogue,
    *,
    context: int | None = None,
) -> Sequence:
    """Several candidates asked about after one history.

    Where the question exceeds the context, the oldest items of the history are left out; candidates and the place of
    the answer are never cut.

    Args:
        history: Item indices in time order; the candidates are not among them.
        candidates: Item indices.
        labels: int64 (n_candidates,): YES or NO.
        prompt: The words around history and candidate.
        catalogue: Token ids of the items.
        context: Positions the model knows; None = no limit.

    Raises:
        BaseModelError: A question does not fit even without a history.
    """
    # A candidate stands without its line feed; the suffix follows.
    blocks = [np.concatenate([catalogue.words(int(c)), prompt.suffix]) for c in candidates]
    if context is not None:
        # The positions of every block continue from the end of the beginning, so the longest block decides.
        longest = max(range(len(blocks)), key=lambda i: len(blocks[i]))
        room = context - len(prompt.prefix) - len(prompt.between) - len(blocks[longest])
        if room < 0:
            raise BaseModelError(
                "context length",
                f"the question about item {int(candidates[longest])} has {context - room} tokens without a history",
                f"at most {context}",
                "shorten the item's title or choose another `base_model`",
            )
        history = recent_that_fit(history, catalogue.lengths, room)
    beginning = np.concatenate([prompt.prefix, catalogue.concat(history), prompt.between])
    return packed(beginning, blocks, labels)


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
        batch_tokens: Tokens per batch, padding included.
        runtime: Device.
        pad_id: Token id of padding.

    Returns:
        float64 (n_questions,) per sequence, in the given order.
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
