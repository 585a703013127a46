"""GPU memory of a QLoRA training, computed from the model's configuration: bytes of what is held, in bf16.

An upper bound: on an H100 the peak stood 3 to 24 % below it (benchmarks/results/gpu.json).
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from llm_i2i.errors import ParamsError
from llm_i2i.llm.engine.loss import MOST_LOGITS
from llm_i2i.params import BaseModelParams, LlmTraining

# Per weight: 4 bits, an 8-bit scale per 64 weights, an fp32 scale per 256 of those (Dettmers et al. 2023, section 3).
NF4: Final = 0.5 + (1 + 4 / 256) / 64
BF16, FP32 = 2, 4
# Bytes of AdamW's two states per value, in 8-bit with an fp32 scale per 256 values of each.
STATES: Final = {"adamw": 2 * FP32, "paged_adamw_8bit": 2 * (1 + FP32 / 256)}
# What a process takes for CUDA and its libraries, beside torch's own memory.
CONTEXT: Final = 500_000_000
# Configurations of the models that our profiles name, so that the table needs no network.
KNOWN: Final[dict[str, dict[str, Any]]] = {
    "meta-llama/Llama-2-7b-chat-hf": {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}


def model_config(params: BaseModelParams) -> Any:
    """Configuration of the base model; only a model that no profile names is looked up on the hub.

    Raises:
        ParamsError: The model is trained whole, or its configuration cannot be read.
    """
    if params.source in ("compact", "random"):
        found = f"is {params.source}, a small model that is not quantized"
        raise ParamsError("base_model.source", found, "embedded | hub | path")
    if params.source != "path" and params.id in KNOWN:
        return LlamaConfig(**KNOWN[params.id])
    where = params.path if params.source == "path" else params.id
    try:
        revision = {} if params.source == "path" else {"revision": params.revision}
        return AutoConfig.from_pretrained(where, trust_remote_code=False, **revision)
    except (OSError, ValueError) as error:
        raise ParamsError(f"base_model {where}", f"has no configuration that can be read ({error})") from error


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on the device while a micro-batch is trained on.

    Attributes:
        base: Layers in NF4; embeddings, head and norms in bf16.
        adapter: LoRA weights and trainable token rows in fp32, their gradients and AdamW's states.
        activations: Inputs of all layers, and what the backward pass through a layer holds.
        logits: Logits of all targets, their log-softmax and gradients.
    """

    base: float
    adapter: float
    activations: float
    logits: float

    @property
    def allocated(self) -> float:
        """What torch reports as the peak."""
        return self.base + self.adapter + self.activations + self.logits

    @property
    def total(self) -> float:
        """With what CUDA itself takes."""
        return self.allocated + CONTEXT


def training_memory(config: Any, params: LlmTraining, *, tokens: int, n_new: int = 0) -> TrainingMemory:
    """Memory of training an adapter on micro-batches of `tokens` tokens, padding included, every token a target.

    Args:
        config: A configuration of transformers, of a Llama-like model.
        params: LoRA's rank, optimizer and checkpointing.
        tokens: Of a micro-batch; with a fused attention kernel the length of its sequences makes no difference.
        n_new: Tokens of stage identify, whose embeddings are trained.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    quantized = sum(w.numel() for w in linear)
    others = sum(p.numel() for p in model.parameters()) - quantized
    tables = 1 if config.tie_word_embeddings else 2
    width, vocabulary = config.hidden_size, config.vocab_size + n_new
    trained = sum(params.lora_r * sum(w.shape) for w in linear) + tables * n_new * width
    layer, gradients = _layer_values(config, params.lora_r)
    layers = config.num_hidden_layers
    held = BF16 * width * layers + layer if params.gradient_checkpointing else layer * layers
    chunk = min(tokens * vocabulary, MOST_LOGITS)
    return TrainingMemory(
        base=NF4 * quantized + BF16 * (others + tables * n_new * width),
        adapter=trained * (2 * FP32 + STATES[params.optimizer]),
        activations=tokens * (held + gradients) + BF16 * max(w.numel() for w in linear),
        logits=chunk * (2 * BF16 + 3 * FP32),
    )


def _layer_values(config: Any, rank: int) -> tuple[float, float]:
    """Bytes per token that one layer keeps for its backward pass, and of the gradients while it runs.

    PEFT reads the input of each of the seven adapted products as an fp32 copy of its own. Two norms keep fp32, the
    attention keeps queries, keys, values and its output, the gated product keeps three bf16 tensors.
    """
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads
    keys = width * (getattr(config, "num_key_value_heads", None) or heads) // heads
    adapters = FP32 * (6 * width + inner + 7 * rank)
    norms, attention, gated = 2 * FP32 * width, BF16 * (2 * width + 2 * keys), 3 * BF16 * inner
    return float(adapters + norms + attention + gated), float(3 * FP32 * inner)
