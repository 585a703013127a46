"""Tokens that are new to an LLM: rows of its embeddings that are then trained.

Differs from the paper: an item's token starts from the words of its title, which the LLM knows, and from factors of who
took the item, so that items of the same users start near each other. From words alone SmolLM2 needs many epochs to
learn what a factorization finds in a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.schema import ITEM_ID, USER_ID

NOISE = 0.1  # share of the embeddings' own spread, so that tokens of equal words differ
FACTORS = 64  # dimensions of who took what
FACTOR_SHARE = 1.0  # length of the factors, as a share of the length of a known embedding


@dataclass(frozen=True)
class NewTokens:
    """Tokens at the end of a vocabulary and their first embeddings.

    Attributes:
        ids: int64 (n_new,).
        words: Sparse float64 (n_new, n_vocabulary), rows of sum 1: the mixture of known tokens that each starts from.
        seed: Of the noise on top.
        vectors: In the compact backbone, which knows no words, float64 (n_new, hidden size), the whole first
            embeddings; in an LLM, where every item has one token, float64 (n_new, n_factors), rows of length 0 to 2
            that are added to the words'. None = noise, or words alone.
    """

    ids: IntArray
    words: sparse.csr_array
    seed: int
    vectors: FloatArray | None = None


def describe_tokens(
    tokenizer: Any, names: Sequence[str], item_tokens: IntArray, texts: Sequence[str], *, seed: int
) -> NewTokens:
    """Give each new token the mean of the words of the items that carry it.

    Args:
        tokenizer: It has the new tokens.
        names: The new tokens.
        item_tokens: int64 (n_items, max_tokens): token ids of each item's identifier.
        texts: The items' titles, shape (n_items,); read as plain text, whatever they spell.
        seed: Of the noise.
    """
    ids = np.asarray(tokenizer.convert_tokens_to_ids(list(names)), dtype=np.int64)
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
    words = _mean_of(np.repeat(np.arange(len(encoded)), [len(e) for e in encoded]), np.concatenate(encoded),
                     shape=(len(encoded), len(tokenizer)))  # fmt: skip
    item, position = np.nonzero(item_tokens >= 0)
    place = np.full(len(tokenizer), -1, dtype=np.int64)
    place[ids] = np.arange(len(ids))
    items = _mean_of(place[item_tokens[item, position]], item, shape=(len(ids), len(item_tokens)))
    return NewTokens(ids, sparse.csr_array(items @ words), seed)


def _mean_of(rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> sparse.csr_array:
    """Matrix whose product with vectors holds, in each row, the mean of the vectors that its pairs name."""
    counts = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(counts.sum(axis=1), 1.0)) @ counts)


def item_factors(
    items: pd.DataFrame, by_user: dict[str, IntArray], *, text: FloatArray, sizes: tuple[int, int], seed: int
) -> FloatArray:
    """Factors of the items' texts and of who took them, without the part that all items share.

    Args:
        items: The catalogue (schema.ITEMS).
        by_user: Item indices of the users trained on, without those held out.
        text: float (n_items, n_dimensions), the items' text vectors.
        sizes: Dimensions of the texts and of the interactions.
        seed: Of the decompositions.

    Returns:
        float64 (n_items, at most sum(sizes)).
    """
    # scikit-learn takes seconds to load, which a model that was trained elsewhere does without
    from llm_i2i.data.identifiers import item_features  # noqa: PLC0415

    taken = np.concatenate([*by_user.values(), np.empty(0, dtype=np.int64)])
    train = pd.DataFrame(
        {
            USER_ID: np.repeat(np.array(list(by_user), dtype=object), [len(v) for v in by_user.values()]),
            ITEM_ID: items[ITEM_ID].to_numpy()[taken],
        }
    )
    features = item_features(items, train, text=text, seed=seed, sizes=sizes)
    # Texts of one catalogue share words, and most users take what everybody takes: without this common part, the rows
    # tell items apart from the start.
    centred: FloatArray = features - features.mean(axis=0)
    return centred


@torch.no_grad()
def extend_embeddings(model: Any, new: NewTokens) -> None:
    """Give a model rows for new tokens, in its input embeddings and, where it is untied, its output head.

    Args:
        model: A causal LM before any adapter is put on it; changed in place.
        new: The tokens.
    """
    known = model.get_input_embeddings().weight.shape[0]
    needed = int(new.ids.max()) + 1
    if needed > known:
        model.resize_token_embeddings(needed, mean_resizing=False)
    noise = torch.Generator().manual_seed(new.seed)
    first = int(new.ids.min())
    # Tied embeddings are one tensor: it is filled once.
    heads = {layer.weight.data_ptr(): layer.weight for layer in _embeddings(model)}
    for weight in heads.values():
        base = weight[:first].float().cpu()
        rows = torch.from_numpy(new.words[:, :first] @ base.numpy().astype(np.float64)).float()
        rows += NOISE * base.std() * torch.randn(rows.shape, generator=noise)
        if new.vectors is not None:
            rows += FACTOR_SHARE * base.std() * rows.shape[1] ** 0.5 * _turned(new.vectors, rows.shape[1], new.seed)
        weight[torch.from_numpy(new.ids)] = rows.to(weight)


def _turned(vectors: FloatArray, size: int, seed: int) -> torch.Tensor:
    """Vectors in `size` dimensions, at random angles: an LLM's own coordinates have meanings."""
    known = torch.from_numpy(vectors[:, :size]).float()
    angles = torch.randn((size, known.shape[1]), generator=torch.Generator().manual_seed(seed))
    turned: torch.Tensor = known @ torch.linalg.qr(angles).Q.T
    return turned


def trainable_rows(model: Any, new: NewTokens) -> dict[str, list[int]]:
    """The rows that an adapter trains, as PEFT's `trainable_token_indices` names them: layer to token ids."""
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    layers = _embeddings(model)
    if layers[0].weight.data_ptr() == layers[1].weight.data_ptr():
        layers = layers[:1]  # PEFT keeps a tied head in step
    return {names[id(layer)]: new.ids.tolist() for layer in layers}


def _embeddings(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]
