"""Loading and saving a causal LM: in 4-bit with a LoRA adapter, or the compact backbone as a whole."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaForCausalLM,
)
from transformers import logging as transformers_logging

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.errors import ArtifactError, BaseModelError, LlmI2iError
from llm_i2i.files import read_json, save_pretrained, write_json
from llm_i2i.llm.engine.compact import item_vectors
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.dropout import add_compact_dropout, add_embedding_dropout
from llm_i2i.llm.engine.new_tokens import FACTORS, NewTokens, extend_embeddings, item_factors, trainable_rows
from llm_i2i.params import LlmTraining

MANIFEST = "manifest.json"
# How configurations name the number of positions.
POSITIONS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "max_seq_length", "seq_length",
    "n_ctx", "context_length",
)  # fmt: skip


def read_manifest(base_model: Path) -> dict[str, Any]:
    """The manifest that stage base_model wrote.

    Raises:
        ArtifactError: It is missing or not JSON.
    """
    manifest: dict[str, Any] = read_json(base_model / MANIFEST, fix="run `dvc repro base_model`")
    return manifest


def _location(base_model: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained`: a folder of our own, or a hub repository at its pinned commit."""
    manifest = read_manifest(base_model)
    if manifest["source"] == "hub":
        return {"pretrained_model_name_or_path": manifest["id"], "revision": manifest["revision"]}
    folder = Path(manifest["path"]) if manifest["source"] == "path" else base_model
    return {"pretrained_model_name_or_path": str(folder)}


def load_tokenizer(base_model: Path, new_tokens: Sequence[str] = ()) -> Any:
    """The base model's tokenizer, with the new tokens of stage identify at the end of its vocabulary.

    They are special tokens, so that text read with `split_special_tokens` is never taken for one of them.

    Raises:
        BaseModelError: The tokenizer cannot be loaded, or has one of them already.
    """
    with _loading(base_model, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(**_location(base_model), trust_remote_code=False)
    known = tokenizer.get_vocab().keys() & set(new_tokens)
    if known:
        raise BaseModelError(
            "tokenizer", f"has {len(known)} of the new item tokens already (first: {min(known)!r})", "new names"
        )
    added = [AddedToken(token, special=True, normalized=False) for token in new_tokens]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer


@contextmanager
def _loading(base_model: Path, part: str) -> Iterator[None]:
    """Turn what a library says of a base model's file into one error of ours: it raises almost anything."""
    try:
        yield
    except LlmI2iError:
        raise
    except Exception as error:
        where = read_manifest(base_model)["id"]
        found = f"its {part} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        raise BaseModelError(f"base model {where}", found, fix="choose another `base_model`") from error


def text_config(base_model: Path) -> Any:
    """The base model's configuration; of a model that also sees or hears, that of its text part.

    Raises:
        BaseModelError: It cannot be loaded.
    """
    with _loading(base_model, "configuration"):
        config = AutoConfig.from_pretrained(**_location(base_model), trust_remote_code=False)
        return config.get_text_config(decoder=True)


def context_length(base_model: Path) -> int:
    """Positions the base model knows: no prompt may be longer; `sys.maxsize` where it does not say.

    Raises:
        BaseModelError: Its configuration cannot be loaded.
    """
    config = text_config(base_model)
    known = _lengths(config, POSITIONS) or _lengths(load_tokenizer(base_model), ("model_max_length",))
    return known[0] if known else sys.maxsize


def prompt_length(base_model: Path) -> int:
    """Tokens a prompt may have: `context_length`, or less where layers see a window of the last tokens only.

    Questions that share a history, and beams that share a prompt, come with a mask of their own, which such layers do
    not narrow: within one window both are the same.
    """
    windows = _lengths(text_config(base_model), ("sliding_window", "attention_chunk_size"))
    return min(context_length(base_model), *windows, sys.maxsize)


def _lengths(named: Any, names: Sequence[str]) -> list[int]:
    """What attributes of these names say; not what is none, nor a library's number for "any length"."""
    values = [getattr(named, name, None) for name in names]
    return [value for value in values if type(value) is int and 0 < value < 1 << 30]


def with_vectors(
    new_tokens: NewTokens | None,
    items: pd.DataFrame,
    by_user: dict[str, IntArray],
    *,
    text: FloatArray,
    base_model: Path,
    seed: int,
) -> NewTokens | None:
    """Add what the interactions say of the items' tokens (`NewTokens.vectors`).

    Args:
        new_tokens: One per item, or None if items have no tokens of their own.
        items: The catalogue (schema.ITEMS).
        by_user: Item indices of the users trained on, without those held out.
        text: float (n_items, n_dimensions), the items' text vectors.
        base_model: Output folder of stage base_model.
        seed: Of the decompositions.
    """
    manifest = read_manifest(base_model)
    if new_tokens is None or manifest.get("item_init") == "random":
        return new_tokens
    if manifest["source"] != "compact":
        vectors = item_factors(items, by_user, text=text, sizes=(0, FACTORS), seed=seed)
        return replace(new_tokens, vectors=vectors)
    size, item_init = manifest["hidden_size"], manifest["item_init"]
    vectors = item_vectors(items, by_user, text=text, item_init=item_init, size=size, seed=seed)
    return replace(new_tokens, vectors=vectors)


def load_for_training(
    base_model: Path, params: LlmTraining, runtime: Runtime, *, seed: int, new_tokens: NewTokens | None = None
) -> Any:
    """Load what is trained: the base with a fresh LoRA adapter initialised by `seed`, or the compact backbone."""
    manifest = read_manifest(base_model)
    if manifest["source"] == "compact":
        model = _load_compact(base_model, new_tokens)
        add_compact_dropout(model, float(manifest["dropout"]))
        return model.to(runtime.device)
    model = _load_base(base_model, runtime, training=True, new_tokens=new_tokens)
    return add_adapter(model, params, seed=seed, name=str(manifest["id"]), new_tokens=new_tokens)


def _load_compact(folder: Path, new_tokens: NewTokens | None) -> Any:
    """Load the compact backbone, fresh or trained, in fp32 because its own weights are trained.

    The rows of new tokens start from their `vectors`, or else as in any fresh model: `extend_embeddings` would make
    them all alike, since this vocabulary has only a few words.
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
        training: Choose the attention kernel for training: on the CPU the fused kernel's backward pass in bf16
            takes more than twice as long as plain matrix products; in every other case the fused one is faster, where
            the architecture has it.
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
            attn_implementation="eager" if training and runtime.device.type == "cpu" else None,
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


def _load_base(base_model: Path, runtime: Runtime, *, training: bool, new_tokens: NewTokens | None) -> Any:
    """The base in NF4; on the CPU, where every 4-bit product first unpacks its weights, they are unpacked once.

    They keep the values that NF4 gave them: the same quantized base, trained an eighth faster and read at twice the
    speed, for the memory of the compute dtype.
    """
    model = load_quantized(base_model, runtime, training=training, new_tokens=new_tokens)
    return model.dequantize(dtype=runtime.dtype) if runtime.device.type == "cpu" else model


def add_adapter(
    model: Any, params: LlmTraining, *, seed: int, name: str, new_tokens: NewTokens | None = None
) -> PeftModel:
    """Put a fresh LoRA adapter on all linear layers; the base stays frozen.

    Args:
        model: From `load_quantized`, as it is or unpacked.
        params: LoRA sizes and dropout.
        seed: Initialises the adapter.
        name: Base model in the adapter's config: an id, never a path of this machine.
        new_tokens: Their embeddings are trained with the adapter; no others are.
    """
    torch.manual_seed(seed)
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
    add_embedding_dropout(peft_model.get_base_model(), params.embedding_dropout)
    peft_model.peft_config["default"].base_model_name_or_path = name
    return peft_model


def load_for_inference(
    base_model: Path, adapter: Path | None, runtime: Runtime, *, new_tokens: NewTokens | None = None
) -> Any:
    """Load base and adapter for inference.

    On CUDA the base stays in 4-bit with the adapter beside it. On the CPU the adapter is added to the unpacked base in
    the compute dtype. (Merging back *into* 4-bit would change the outputs.)

    The compact backbone's "adapter" is the whole model, in fp32. Without an adapter it is the base alone.

    Raises:
        ArtifactError: The adapter is missing or does not fit the base model.
    """
    if read_manifest(base_model)["source"] == "compact":
        whole = _load_compact(base_model if adapter is None else adapter, new_tokens)
        return whole.to(runtime.device).eval()
    model = _load_base(base_model, runtime, training=False, new_tokens=new_tokens)
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


def save_model(model: Any, out: Path) -> None:
    """Write what was trained as safetensors and config: an adapter, without PEFT's empty model card, or the whole."""
    if not isinstance(model, PeftModel):
        save_pretrained(out, model)
        return
    # The vocabulary never changes; without this option PEFT asks the hub whether it did.
    save_pretrained(out, model, safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    # PEFT keeps the names of the adapted layers as a set: their order differs from process to process.
    config = out / "adapter_config.json"
    content = read_json(config)
    write_json({**content, "target_modules": sorted(content["target_modules"])}, config)
