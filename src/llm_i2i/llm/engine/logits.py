"""Logits of a causal LM at chosen positions only."""

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional


class TargetLogits(nn.Module):
    """Logits of a causal LM at chosen positions only.

    The vocabulary projection is a fifth of a small model's work, and most positions are not targets.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # In a tuple, so that torch does not register it a second time: it is inside `model` already.
        self._inner = (model.get_base_model() if isinstance(model, PeftModel) else model,)
        self.plain_head = self._head_is_plain()

    @property
    def lm(self) -> Any:
        """The causal LM itself, below PEFT's wrapper."""
        return self._inner[0]

    @torch.no_grad()
    def _head_is_plain(self) -> bool:
        """Whether logits are just head(hidden). Where an architecture scales or caps them, the slow way is taken."""
        lm = self.lm
        was_training = lm.training
        lm.eval()
        ids = torch.tensor([[1, 2, 3]], device=lm.device)
        whole = lm(input_ids=ids, use_cache=False).logits
        parts = lm.get_output_embeddings()(lm.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        lm.train(was_training)
        return bool(torch.allclose(whole, parts, rtol=1e-2, atol=1e-2))

    def extend(self, cache: Any, *, keep: int, **inputs: torch.Tensor) -> torch.Tensor:
        """Append tokens to `cache`; return the logits of the last `keep`, float32 (n_rows, keep, vocabulary)."""
        inputs["attention_mask"] = _additive(inputs["attention_mask"], self.lm.dtype)
        fed: dict[str, Any] = {**inputs, "past_key_values": cache, "use_cache": True}
        if not self.plain_head:
            logits: torch.Tensor = self.lm(**fed, logits_to_keep=keep).logits.float()
            return logits
        # The library hands the head a slice. Where that is not contiguous, torch computes one product per row, each
        # with a copy of the whole weight: most of the time of a short step.
        return self.head(self.lm.base_model(**fed).last_hidden_state[:, -keep:].contiguous(), None)

    def head(self, states: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
        """Logits, float32 (..., vocabulary or len(columns)), of what `states` gives."""
        if not self.plain_head:
            return states if columns is None else states[..., columns]
        head = self.lm.get_output_embeddings()
        if columns is None:
            whole: torch.Tensor = head(states).float()
            return whole
        bias = None if getattr(head, "bias", None) is None else head.bias[columns]
        return functional.linear(states, head.weight[columns], bias).float()

    def states(self, inputs: dict[str, torch.Tensor], rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What `head` turns into logits at (row, position) pairs: the last hidden states, (n_targets, hidden size).

        Where the head is not plain, the logits themselves, float32 (n_targets, vocabulary).
        """
        if "attention_mask" in inputs:
            inputs = {**inputs, "attention_mask": _additive(inputs["attention_mask"], self.lm.dtype)}
        if not self.plain_head:
            logits: torch.Tensor = self.lm(**inputs, use_cache=False).logits[rows, positions].float()
            return logits
        hidden: torch.Tensor = self.lm.base_model(**inputs, use_cache=False).last_hidden_state[rows, positions]
        return hidden

    def forward(
        self, inputs: dict[str, torch.Tensor], rows: torch.Tensor, positions: torch.Tensor, columns: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits at (row, position) pairs.

        Args:
            inputs: input_ids and, where needed, position_ids and attention_mask (bool, 2-D or 4-D).
            rows: int64 (n_targets,).
            positions: int64 (n_targets,): the position whose output predicts the target.
            columns: Token ids to compare, or None for the whole vocabulary.

        Returns:
            float32 (n_targets, vocabulary or len(columns)).
        """
        return self.head(self.states(inputs, rows, positions), columns)


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A 4-D boolean mask as the addend that every attention kernel takes; a 2-D padding mask unchanged."""
    if mask.ndim != 4:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
