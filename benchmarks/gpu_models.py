"""What benchmarks/gpu.py measures on: models of random weights in the shapes of real ones, sequences and catalogues."""

from typing import Any

import bitsandbytes as bnb
import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu_context import Context
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.memory import KNOWN
from llm_i2i.llm.engine.models import load_tokenizer
from llm_i2i.llm.engine.trie import Catalogue, tokenize_catalogue
from llm_i2i.llm.identifiers import Vocabulary
from llm_i2i.llm.prompts import discriminator_prompt, discriminator_template
from llm_i2i.llm.questions import questions
from llm_i2i.llm.role import Role

LLAMA, SMOLLM = KNOWN
# A model that goes through the same code in no time.
TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 4096,
}  # fmt: skip
WORDS = 200  # tokens that titles are made of, from 10 on


def config_of(name: str, *, small: bool, n_new: int = 0) -> LlamaConfig:
    """Configuration of a known model, or with `small` of a tiny one; `n_new` more tokens."""
    values = TINY if small else KNOWN[name]
    return LlamaConfig(**{**values, "vocab_size": values["vocab_size"] + n_new})


def shape_of(config: LlamaConfig) -> Any:
    """A model without values."""
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def random_model(config: LlamaConfig, runtime: Runtime, *, quantized: bool) -> Any:
    """A causal LM of seeded random weights, built on the device one matrix at a time.

    Quantized, its layers are in NF4 as `load_quantized` leaves them: no more than one matrix is ever there in bf16.
    """
    torch.manual_seed(0)
    model = shape_of(config)
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if quantized and isinstance(child, nn.Linear) and child is not head:
                setattr(parent, name, _nf4(child, runtime))
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.is_meta:
                filled = torch.ones(weight.shape, dtype=runtime.dtype, device=runtime.device)
                values = filled if weight.ndim == 1 else filled.normal_(std=0.02)
                setattr(module, name, nn.Parameter(values, requires_grad=False))
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(runtime.device)
    model.is_loaded_in_4bit = quantized
    return model.eval()


def _nf4(linear: nn.Linear, runtime: Runtime) -> bnb.nn.Linear4bit:
    weight = torch.empty(linear.weight.shape, dtype=runtime.dtype, device=runtime.device).normal_(std=0.02)
    made = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=runtime.dtype,
        quant_type="nf4",
        device="meta",
    )
    # bitsandbytes (0.50) repacks weights on an AVX512-BF16 CPU for a kernel that has no backward pass.
    made.support_avx512bf16_for_cpu = False
    made.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=made
    )
    return made.to(runtime.device)


def windows(n: int, length: int, vocabulary: int, rng: np.random.Generator) -> list[Sequence]:
    """Sequences of random tokens, each of them a target."""
    ids = rng.integers(10, vocabulary, size=(n, length))
    blocks, positions, weights = np.zeros(length, dtype=np.int64), np.arange(length - 1), np.ones(length - 1)
    return [Sequence(row, blocks, positions, row[1:], weights) for row in ids]


def catalogue_of(kind: str, n: int, config: LlamaConfig, rng: np.random.Generator) -> Catalogue:
    """Items as titles of three to six words that share beginnings, as one new token each, or as codes of three."""
    if kind == "tokens":
        first = config.vocab_size - n
        return Catalogue(first + np.arange(n)[:, None], np.ones(n, dtype=np.int64), 0, terminated=False)
    if kind == "codes":
        size = max(16, round((8 * n) ** (1 / 3)))
        made = rng.choice(size**3, size=n, replace=False)
        digits = np.stack([made // size**2, made // size % size, made % size], axis=1)
        return Catalogue(10 + digits + size * np.arange(3), np.full(n, 3), 0, terminated=False)
    drawn = (rng.zipf(1.2, size=(2 * n, 6)) - 1) % WORDS + 10
    lengths = rng.integers(3, 7, size=2 * n)
    drawn[np.arange(6) >= lengths[:, None]] = -1
    unique = np.unique(drawn, axis=0)
    unique = unique[rng.permutation(len(unique))[:n]]
    lengths = (unique >= 0).sum(axis=1)
    tokens = np.concatenate([unique, np.full((len(unique), 1), -1)], axis=1)
    tokens[np.arange(len(unique)), lengths] = 0
    return Catalogue(tokens, lengths + 1, 0)


def discriminator_role_of(context: Context, titles: list[str]) -> Any:
    """A role with the words of the discriminator and a catalogue of titles."""
    tokenizer = load_tokenizer(context.base_model)
    prompt = discriminator_prompt(tokenizer, discriminator_template("discriminator_v1"))
    catalogue = tokenize_catalogue(titles, tokenizer)
    # Setup and task are for loading and history lengths: nothing here asks for them.
    return Role(None, None, prompt, Vocabulary(tokenizer, catalogue, None), context.runtime, 4096)


def asked_questions(role: Any, users: int, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Ten questions per history, together and one by one."""
    n_items, no = len(role.catalogue.lengths), np.zeros(10, dtype=np.int64)
    chosen = [rng.choice(n_items, size=20, replace=False) for _ in range(users)]
    together = [questions(c[:10], c[10:], no, role) for c in chosen]
    return together, [questions(c[:10], c[10 + k : 11 + k], no[:1], role) for c in chosen for k in range(10)]


def random_ranker(context: Context, kind: str, n_items: int) -> NextItems:
    config = config_of(SMOLLM, small=context.small, n_new=n_items if kind == "tokens" else 0)
    catalogue = catalogue_of(kind, n_items, config, np.random.default_rng(6))
    module = TargetLogits(random_model(config, context.runtime, quantized=False))
    return NextItems(module, catalogue, context.runtime.device, softmax="catalogue")


def random_users(ranker: NextItems, users: int, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Prompts of ten items behind a common instruction, and those items to exclude."""
    n_items, instruction = len(ranker.catalogue.lengths), np.arange(10, 50)
    taken = [np.sort(rng.choice(n_items, size=10, replace=False)) for _ in range(users)]
    return [np.concatenate([instruction, ranker.catalogue.concat(items)]) for items in taken], taken
