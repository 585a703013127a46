"""The compact backbone: a small Llama of seeded weights with one token an item, trained whole.

For catalogues without text, for CPUs, and as a control of what pretraining adds. Its own vocabulary holds the few
words of its templates (`generator_compact_v1`, `discriminator_compact_v1`); the items are new tokens, added as for
any other LLM.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llm_i2i.params import CompactParams

# Special tokens, the line feed that separates, and the words of the templates.
VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "\n", "?", "Yes", "No")
MAX_POSITIONS = 4096


def write_compact(params: CompactParams, *, seed: int, out: Path) -> Any:
    """Write model and tokenizer as a Hugging Face folder; returns the model.

    Args:
        params: Sizes.
        seed: Initialises the weights.
        out: Folder to write to.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(out)
    _tokenizer().save_pretrained(out)
    return model


def add_dropout(model: Any, rate: float) -> None:
    """Drop item embeddings, what each layer adds, and the last hidden state, in training mode only.

    Llama knows dropout of attention weights alone; these are the places of SASRec (Kang and McAuley 2018,
    section III-E), without which a model of one token an item overfits within a few epochs.

    Args:
        model: The Llama of `write_compact`, its vocabulary already extended.
        rate: Probability of a zero, in [0, 1).
    """

    def drop(module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, rate, training=module.training)

    layers = model.model.layers
    places = [model.model.embed_tokens, model.model.norm]
    places += [part for layer in layers for part in (layer.self_attn.o_proj, layer.mlp.down_proj)]
    for place in places:
        place.register_forward_hook(drop)


def _tokenizer() -> PreTrainedTokenizerFast:
    pad, start, end, unknown = VOCABULARY[:4]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=unknown))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[\n?]"), behavior="isolated"),
            pre_tokenizers.Split(" ", behavior="removed"),
        ]
    )
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, bos_token=start, eos_token=end, unk_token=unknown
    )
