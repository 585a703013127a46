"""Loading a causal LM (in 4-bit with a LoRA adapter, or compact and whole), and its logits at chosen positions."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaForCausalLM,
)
from transformers import logging as transformers_logging

from llm_i2i.arrays import IntArray
from llm_i2i.errors import ArtifactError, BaseModelError
from llm_i2i.llm.engine.compact import add_dropout, item_vectors
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.new_tokens import NewTokens, extend_embeddings, trainable_rows
from llm_i2i.params import LlmTraining

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


def read_manifest(base_model: Path) -> dict[str, Any]:
    """The manifest that stage base_model wrote.

    Raises:
        ArtifactError: It is missing or no JSON.
    """
    path = base_model / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(str(path), f"unreadable ({error})", fix="run `dvc repro base_model`") from error
    return manifest


def _location(base_model: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained`: a folder of our own, or a hub repository at its pinned commit."""
    manifest = read_manifest(base_model)
    if manifest["source"] == "hub":
        return {"pretrained_model_name_or_path": manifest["id"], "revision": manifest["revision"]}
    folder = Path(manifest["path"]) if manifest["source"] == "path" else base_model
    return {"pretrained_model_name_or_path": str(folder)}


def load_tokenizer(base_model: Path, new_tokens: Sequence[str] = ()) -> Any:
    """The base model's tokenizer, with new tokens at the end of its vocabulary.

    Args:
        base_model: Output folder of stage base_model.
        new_tokens: From stage identify. They are special tokens, so that text read with `split_special_tokens`
            is never taken for one of them.

    Raises:
        BaseModelError: The tokenizer has one of them already.
    """
    tokenizer = AutoTokenizer.from_pretrained(**_location(base_model), trust_remote_code=False)
    known = tokenizer.get_vocab().keys() & set(new_tokens)
    if known:
        raise BaseModelError(
            "tokenizer",
            f"has {len(known)} of the new item tokens already (first: {min(known)!r})",
            "new names",
        )
    added = [AddedToken(token, special=True, normalized=False) for token in new_tokens]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer


def context_length(base_model: Path) -> int:
    """Positions the base model knows: no prompt may be longer."""
    config = AutoConfig.from_pretrained(**_location(base_model), trust_remote_code=False)
    return int(config.max_position_embeddings)


def is_compact(base_model: Path) -> bool:
    """Whether the base model is the compact backbone, which is trained whole."""
    return bool(read_manifest(base_model)["source"] == "compact")


def with_vectors(
    new_tokens: NewTokens | None,
    items: pd.DataFrame,
    by_user: dict[str, IntArray],
    *,
    base_model: Path,
    seed: int,
) -> NewTokens | None:
    """Give the items' tokens what they begin as in the compact backbone; any other model's begin as words it knows.

    Args:
        new_tokens: One an item, or None if items have no tokens of their own.
        items: The catalogue (schema.ITEMS).
        by_user: Item indices of the users trained on, held-out ones left out.
        base_model: Output folder of stage base_model.
        seed: Of `item_vectors`.
    """
    manifest = read_manifest(base_model)
    if new_tokens is None or manifest["source"] != "compact" or manifest["item_init"] == "random":
        return new_tokens
    size, item_init = manifest["hidden_size"], manifest["item_init"]
    return replace(
        new_tokens, vectors=item_vectors(items, by_user, item_init=item_init, size=size, seed=seed)
    )


def load_for_training(
    base_model: Path, params: LlmTraining, runtime: Runtime, *, seed: int, new_tokens: NewTokens | None = None
) -> Any:
    """The model as it is trained: a 4-bit base with a fresh LoRA adapter, or the whole compact backbone.

    Args:
        base_model: Output folder of stage base_model.
        params: LoRA sizes.
        runtime: Device and compute dtype.
        seed: Initialises the adapter.
        new_tokens: The items' own, if they have any.
    """
    if is_compact(base_model):
        model = _load_compact(base_model, new_tokens)
        add_dropout(model, float(read_manifest(base_model)["dropout"]))
        return model.to(runtime.device)
    name = str(read_manifest(base_model)["id"])
    model = load_quantized(base_model, runtime, training=True, new_tokens=new_tokens)
    return add_adapter(model, params, seed=seed, name=name, new_tokens=new_tokens)


def _load_compact(folder: Path, new_tokens: NewTokens | None) -> Any:
    """The compact backbone, in fp32 as its weights themselves are trained.

    Args:
        folder: Of the base model or of a trained one.
        new_tokens: Tokens to make room for. Their rows begin as their `vectors` or as those of any fresh model: made
            of the few words that the vocabulary has, as `extend_embeddings` would, they would all be alike.
    """
    transformers_logging.disable_progress_bar()
    try:
        model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(str(folder), f"no compact model ({error})", fix="run `dvc repro`") from error
    if new_tokens is not None and int(new_tokens.ids.max()) >= model.config.vocab_size:
        torch.manual_seed(new_tokens.seed)
        model.resize_token_embeddings(int(new_tokens.ids.max()) + 1, mean_resizing=False)
        if new_tokens.vectors is not None:
            weight = model.get_input_embeddings().weight
            weight.data[new_tokens.ids] = torch.from_numpy(new_tokens.vectors).to(weight)
    # Neither an id nor a path of this machine.
    model.config._name_or_path = model.name_or_path = "compact-llama"  # noqa: SLF001
    return model


def load_quantized(
    base_model: Path, runtime: Runtime, *, training: bool = False, new_tokens: NewTokens | None = None
) -> Any:
    """Load the base model in NF4 with double quantization (QLoRA, Dettmers et al. 2023, section 3).

    Args:
        base_model: Output folder of stage base_model.
        runtime: Device and compute dtype.
        training: Choose the attention kernel for training: on the CPU the fused kernel's backward in bf16 takes
            more than twice the time of plain matrix products; in every other case the fused one is faster.
        new_tokens: Tokens to make room for; embeddings are never quantized.

    Raises:
        BaseModelError: The weights cannot be loaded.
    """
    transformers_logging.disable_progress_bar()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=runtime.dtype,
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **_location(base_model),
            quantization_config=config,
            dtype=runtime.dtype,
            attn_implementation="eager" if training and runtime.device.type == "cpu" else "sdpa",
            device_map={"": runtime.device},
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(
            str(base_model), f"cannot be loaded ({error})", fix="run `dvc repro base_model`"
        ) from error
    if new_tokens is not None:
        extend_embeddings(model, new_tokens)
    return model


def add_adapter(
    model: Any, params: LlmTraining, *, seed: int, name: str, new_tokens: NewTokens | None = None
) -> PeftModel:
    """Put a fresh LoRA adapter on all linear layers; the base stays frozen in 4-bit.

    Args:
        model: From `load_quantized`.
        params: LoRA sizes.
        seed: Initialises the adapter.
        name: Recorded as base model in the adapter's config: an id, never a path of this machine.
        new_tokens: Their embeddings are trained with the adapter, no others.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        # bitsandbytes (0.50) repacks a layer's weights at its first forward in eval mode on an AVX512-BF16 CPU, and
        # the kernel for them has no backward: a model that was once read in eval mode would train on silently
        # wrong gradients.
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    if params.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        trainable_token_indices=None if new_tokens is None else trainable_rows(model, new_tokens),
    )
    peft_model = get_peft_model(model, config)
    peft_model.peft_config["default"].base_model_name_or_path = name
    return peft_model


def load_for_inference(
    base_model: Path, adapter: Path | None, runtime: Runtime, *, new_tokens: NewTokens | None = None
) -> Any:
    """Load base and adapter for reading.

    On CUDA the base stays in 4-bit with the adapter beside it. On the CPU, where every 4-bit product first
    unpacks its weights, the NF4 values are unpacked once and the adapter is added in the compute dtype: the same
    quantized base, twice the speed. (Merging back *into* 4-bit would change the outputs; nothing here does.)

    The compact backbone's "adapter" is the whole model, in fp32.

    Args:
        base_model: Output folder of stage base_model.
        adapter: Adapter folder, or None for the base alone.
        runtime: Device and compute dtype.
        new_tokens: The adapter's, if it has any.

    Raises:
        ArtifactError: The adapter is missing or does not fit the base model.
    """
    if is_compact(base_model):
        whole = _load_compact(base_model if adapter is None else adapter, new_tokens)
        return whole.to(runtime.device).eval()
    model = load_quantized(base_model, runtime, new_tokens=new_tokens)
    if runtime.device.type == "cpu":
        model = model.dequantize(dtype=runtime.dtype)
    if adapter is not None:
        try:
            model = PeftModel.from_pretrained(model, str(adapter))
        except (OSError, ValueError, RuntimeError) as error:
            raise ArtifactError(
                str(adapter), f"no adapter for this base model ({error})", fix="run `dvc repro`"
            ) from error
        if runtime.device.type == "cpu":
            model = model.merge_and_unload()
    return model.eval()


class TargetLogits(nn.Module):
    """Logits of a causal LM at chosen positions only.

    The vocabulary projection is a fifth of a small model's work; most positions are no targets.
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
        """Whether logits are just head(hidden). Some architectures scale or cap them: then the slow way is taken."""
        lm = self.lm
        was_training = lm.training
        lm.eval()
        ids = torch.tensor([[1, 2, 3]], device=lm.device)
        whole = lm(input_ids=ids, use_cache=False).logits
        parts = lm.get_output_embeddings()(lm.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        lm.train(was_training)
        return bool(torch.allclose(whole, parts, rtol=1e-2, atol=1e-2))

    def extend(self, cache: Any, *, keep: int, **inputs: torch.Tensor) -> torch.Tensor:
        """Feed tokens behind what `cache` holds; logits, float32 (n_rows, keep, vocabulary), of the last `keep`."""
        inputs["attention_mask"] = _additive(inputs["attention_mask"], self.lm.dtype)
        fed: dict[str, Any] = {**inputs, "past_key_values": cache, "use_cache": True}
        if not self.plain_head:
            logits: torch.Tensor = self.lm(**fed, logits_to_keep=keep).logits.float()
            return logits
        # The library hands the head a slice; of one that is not contiguous torch makes a product a row, each with a
        # copy of the whole weight: most of the time of a short step.
        return self._head(self.lm.base_model(**fed).last_hidden_state[:, -keep:].contiguous(), None)

    def _head(self, hidden: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
        head = self.lm.get_output_embeddings()
        if columns is None:
            whole: torch.Tensor = head(hidden).float()
            return whole
        bias = None if getattr(head, "bias", None) is None else head.bias[columns]
        return functional.linear(hidden, head.weight[columns], bias).float()

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        rows: torch.Tensor,
        positions: torch.Tensor,
        columns: torch.Tensor | None,
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
        if "attention_mask" in inputs:
            inputs = {**inputs, "attention_mask": _additive(inputs["attention_mask"], self.lm.dtype)}
        if not self.plain_head:
            logits: torch.Tensor = self.lm(**inputs, use_cache=False).logits[rows, positions].float()
            return logits if columns is None else logits[:, columns]
        hidden = self.lm.base_model(**inputs, use_cache=False).last_hidden_state
        return self._head(hidden[rows, positions], columns)


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A 4-D mask of bools as the addend that every attention kernel takes; a 2-D padding mask as it is."""
    if mask.ndim != 4:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
