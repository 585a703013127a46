"""Sequences with targets, and their grouping into token-budget batches.

A sequence may hold several independent continuations ("blocks") of one shared beginning: every block sees the
beginning and itself, not the other blocks. So ten Yes/No questions about one history cost one encoding of it and
give the same results as ten sequences (packing with a block mask; the positions of each block continue from the
end of the beginning).
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from llm_i2i.arrays import IntArray

MAX_PADDING = 0.1  # of the tokens of a batch


@dataclass(frozen=True)
class Sequence:
    """One row of a batch.

    Attributes:
        ids: int64 (n,): token ids.
        blocks: int64 (n,): 0 for the shared beginning, 1, 2, ... for the blocks; all 0 for plain causal text.
        positions: int64 (t,): positions whose outputs are read.
        labels: int64 (t,): the target there: a token id, or a class.
        weights: float64 (t,): loss weights.
        nodes: int64 (t,), where the softmax is over the catalogue: the trie node whose child the label numbers.
    """

    ids: IntArray
    blocks: IntArray
    positions: IntArray
    labels: IntArray
    weights: npt.NDArray[np.float64]
    nodes: IntArray | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)


def packed(beginning: IntArray, blocks: SequenceOf[IntArray], labels: IntArray) -> Sequence:
    """A shared beginning and its blocks; the output at each block's last token is read.

    Args:
        beginning: Token ids seen by every block.
        blocks: Token ids of each block.
        labels: int64 (n_blocks,).
    """
    lengths = np.array([len(block) for block in blocks], dtype=np.int64)
    numbers = np.repeat(np.arange(len(blocks) + 1), np.concatenate(([len(beginning)], lengths)))
    ends = len(beginning) + np.cumsum(lengths) - 1
    return Sequence(np.concatenate([beginning, *blocks]), numbers, ends, labels, np.ones(len(blocks)))


@dataclass(frozen=True)
class Batch:
    """Sequences as tensors, right-padded; see `Sequence` for the target fields.

    Attributes:
        inputs: input_ids and position_ids, int64 (n_rows, n_tokens); attention_mask, bool, (n_rows, n_tokens)
            for plain causal text or (n_rows, 1, n_tokens, n_tokens) with blocks.
        rows: int64 (n_targets,).
        positions: int64 (n_targets,).
        labels: int64 (n_targets,).
        weights: float32 (n_targets,).
        n_tokens: Tokens without padding.
        nodes: int64 (n_targets,) or None.
    """

    inputs: dict[str, torch.Tensor]
    rows: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    n_tokens: int
    nodes: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; a GPU need not end what it does for it, and the host goes on."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            if device.type != "cuda":
                return tensor.to(device)
            # Only from pinned memory does a copy run beside the host's own work; a view whose elements share memory,
            # as an expanded mask does, cannot be pinned.
            return tensor.contiguous().pin_memory().to(device, non_blocking=True)

        return Batch(
            {name: moved(tensor) for name, tensor in self.inputs.items()},
            moved(self.rows),
            moved(self.positions),
            moved(self.labels),
            moved(self.weights),
            self.n_tokens,
            None if self.nodes is None else moved(self.nodes),
        )


def collate(sequences: SequenceOf[Sequence], pad_id: int) -> Batch:
    """Stack sequences into one padded batch."""
    length = max(len(s) for s in sequences)
    ids = np.full((len(sequences), length), pad_id, dtype=np.int64)
    blocks = np.full((len(sequences), length), -1, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence.ids
        blocks[row, : len(sequence)] = sequence.blocks
    inputs = {"input_ids": torch.from_numpy(ids), **_mask_and_positions(torch.from_numpy(blocks))}
    rows = np.repeat(np.arange(len(sequences)), [len(s.positions) for s in sequences])
    nodes = [s.nodes for s in sequences if s.nodes is not None]
    return Batch(
        inputs,
        torch.from_numpy(rows),
        torch.from_numpy(np.concatenate([s.positions for s in sequences])),
        torch.from_numpy(np.concatenate([s.labels for s in sequences])),
        torch.from_numpy(np.concatenate([s.weights for s in sequences])).float(),
        n_tokens=sum(len(s) for s in sequences),
        nodes=torch.from_numpy(np.concatenate(nodes)) if len(nodes) == len(sequences) else None,
    )


def _mask_and_positions(blocks: torch.Tensor) -> dict[str, torch.Tensor]:
    """Attention mask and position ids from block numbers (n_rows, n_tokens), -1 = padding."""
    n_rows, length = blocks.shape
    order = torch.arange(length).expand(n_rows, length)
    if bool((blocks <= 0).all()):
        return {"attention_mask": blocks == 0, "position_ids": order}
    beginning = (blocks == 0).sum(dim=1, keepdim=True)
    same = blocks[:, :, None] == blocks[:, None, :]
    causal = order[:, :, None] >= order[:, None, :]
    mask = causal & (same | (blocks == 0)[:, None, :])
    # A block's tokens count on from the end of the beginning.
    within = (same & causal).sum(dim=2) - 1
    positions = torch.where(blocks > 0, beginning + within, order)
    return {"attention_mask": mask[:, None], "position_ids": positions}


def plan_batches(lengths: npt.ArrayLike, batch_tokens: int) -> list[IntArray]:
    """Group sequences of similar length so that no padded batch exceeds a token budget or wastes a tenth of itself.

    Args:
        lengths: Tokens of each sequence.
        batch_tokens: Budget, padding included; a sequence longer than it stands alone.

    Returns:
        Index arrays, longest sequences first; every sequence once.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        ahead = lengths[order[start : start + max(1, batch_tokens // longest)]]
        # Padding only grows with every shorter sequence, so the batch ends before the first one too many.
        padding = 1.0 - np.cumsum(ahead) / (longest * np.arange(1, len(ahead) + 1))
        size = int((padding <= MAX_PADDING).sum())
        batches.append(order[start : start + size])
        start += size
    return batches


def padding_share(lengths: npt.ArrayLike, batches: SequenceOf[IntArray]) -> float:
    """Share of the tokens of all padded batches that are padding, in [0, 1)."""
    lengths = np.asarray(lengths, dtype=np.int64)
    real = sum(int(lengths[batch].sum()) for batch in batches)
    return 1.0 - real / sum(int(lengths[batch].max()) * len(batch) for batch in batches)
