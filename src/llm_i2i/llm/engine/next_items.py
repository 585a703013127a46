"""The most probable next items after a prompt, whatever the identifiers."""

import numpy as np
import torch

from llm_i2i.arrays import IntArray
from llm_i2i.errors import GenerationError
from llm_i2i.llm.engine.batches import Sequence, collate
from llm_i2i.llm.engine.beam import Generated, ItemModel, beam_search
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.sampling import Sampling
from llm_i2i.llm.engine.trie import Catalogue
from llm_i2i.params import Softmax


class NextItems:
    """Ranks the catalogue: from the logits where every item is one token, else by beam search over the trie."""

    def __init__(
        self, module: TargetLogits, catalogue: Catalogue, device: torch.device, *, softmax: Softmax
    ) -> None:
        self.model = ItemModel.of(module, catalogue, device, softmax=softmax)
        self.device, self.single_token = device, catalogue.single_token
        self.columns = torch.from_numpy(catalogue.tokens[:, 0]).to(device)

    @property
    def n_nodes(self) -> int:
        """Nodes of the trie."""
        return len(self.model.trie.n_leaves)

    def top(
        self,
        prompts: list[IntArray],
        excluded: list[IntArray],
        *,
        n: int,
        num_beams: int,
        sampling: Sampling | None = None,
    ) -> Generated:
        """The `n` most probable items after each prompt, or `n` drawn ones, none of them excluded.

        Args:
            prompts: Token ids, one array per row.
            excluded: Item indices that a row may not produce, without repeats.
            n: Items per row.
            num_beams: Width of the beam search, >= n; without effect where every item is one token.
            sampling: Draw items in this way instead of taking the most probable.

        Returns:
            Exact where every item is one token (the log-probabilities are then those among the catalogue's
            tokens, as trained); else what the beam search finds.

        Raises:
            GenerationError: A row excludes the whole catalogue.
        """
        if sampling is not None or not self.single_token:
            return beam_search(self.model, prompts, excluded, n=n, num_beams=num_beams, sampling=sampling)
        if any(len(items) >= len(self.columns) for items in excluded):
            raise GenerationError(
                "next items", "a user's history covers the whole catalogue", "at least one other item"
            )
        return self._read_off(prompts, excluded, n)

    @torch.no_grad()
    def _read_off(self, prompts: list[IntArray], excluded: list[IntArray], n: int) -> Generated:
        batch = collate([_reads_last(prompt) for prompt in prompts], self.model.pad_id).to(self.device)
        logits = self.model.module(batch.inputs, batch.rows, batch.positions, self.columns)
        log_p = logits.log_softmax(dim=-1)
        rows = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
        log_p[torch.from_numpy(rows), torch.from_numpy(np.concatenate(excluded))] = float("-inf")
        scores, items = log_p.topk(min(n, log_p.shape[1]), dim=1)
        items = items.masked_fill(scores == float("-inf"), -1)
        missing = ((0, 0), (0, n - items.shape[1]))
        logprobs = np.pad(scores.cpu().numpy(), missing, constant_values=-np.inf)
        return Generated(
            np.pad(items.cpu().numpy(), missing, constant_values=-1), logprobs, logprobs.astype(np.float64)
        )


def target_ranks(found: IntArray, targets: IntArray) -> IntArray:
    """Rank of one target per row, from 1; 0 where it is not in the list.

    Args:
        found: int64 (n_rows, k): items, best first.
        targets: int64 (n_rows,).
    """
    hits = found == targets[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def _reads_last(prompt: IntArray) -> Sequence:
    """A sequence whose last output is read; its label and weight are not used."""
    last = np.array([len(prompt) - 1])
    return Sequence(
        prompt, np.zeros(len(prompt), dtype=np.int64), last, np.zeros(1, dtype=np.int64), np.ones(1)
    )
