"""The compact backbone: a small Llama of seeded weights with one token per item, trained whole.

For catalogues without text, for CPUs, and as a control that shows what pretraining adds. Its own vocabulary holds the
few words of its templates (`generator_bare_v1`, `discriminator_compact_v1`); the items are new tokens, added as for
any other LLM.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.files import save_pretrained
from llm_i2i.llm.engine.new_tokens import item_factors
from llm_i2i.params import CompactParams

# Special tokens, the line feed that separates, and the words of the templates.
VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "\n", "?", "Yes", "No")
MAX_POSITIONS = 4096
# Root mean square of a first embedding's coordinates, and the share of noise in it, so that like items differ.
INIT_SCALE, INIT_NOISE = 0.05, 0.1


def write_compact(params: CompactParams, *, seed: int, out: Path) -> Any:
    """Write a model of seeded weights and its tokenizer as a Hugging Face folder; returns the model."""
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
    save_pretrained(out, model, _tokenizer())
    return model


def item_vectors(
    items: pd.DataFrame, by_user: dict[str, IntArray], *, text: FloatArray, item_init: str, size: int, seed: int
) -> npt.NDArray[np.float64]:
    """First item embeddings: factors of who took what, optionally beside factors of the items' text vectors.

    From noise, a model of one token per item takes three times as many epochs to reach the same NDCG.

    Args:
        items: The catalogue (schema.ITEMS).
        by_user: Item indices of the users trained on, without those held out.
        text: float (n_items, n_dimensions), the items' text vectors.
        item_init: `interactions`, or `text+interactions`: half of the coordinates each.
        size: Coordinates.
        seed: Of the decompositions and of the noise.

    Returns:
        float64 (n_items, size).
    """
    n_text = size // 2 if item_init == "text+interactions" else 0
    features = item_factors(items, by_user, text=text, sizes=(n_text, size - n_text), seed=seed)
    vectors = np.random.default_rng(seed).normal(0.0, INIT_NOISE * INIT_SCALE, (len(items), size))
    if features.shape[1]:  # else no word and no user occurs twice
        from sklearn.preprocessing import normalize  # noqa: PLC0415 - seconds, which a trained model does without

        vectors[:, : features.shape[1]] += INIT_SCALE * np.sqrt(size) * normalize(features)
    return vectors


def _tokenizer() -> PreTrainedTokenizerFast:
    pad, start, end, unknown = VOCABULARY[:4]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=unknown))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[\n?]"), behavior="isolated"), pre_tokenizers.Split(" ", behavior="removed")]
    )
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, bos_token=start, eos_token=end, unk_token=unknown
    )
