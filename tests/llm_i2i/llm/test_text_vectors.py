import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

from llm_i2i.catalogue import read_text_vectors
from llm_i2i.errors import ArtifactError, BaseModelError
from llm_i2i.llm.text_vectors import encode_items


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, items):
    """A folder of sentence-transformers: a tiny BERT of random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word.lower() for text in items["text"] for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    config = BertConfig(
        vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(folder / "model"))
    return folder / "model"


def encode(items, params, cpu_fp32, tmp_path, **changes):
    settings = params.encode_text.model_copy(update=changes)
    return encode_items(items, settings, runtime=cpu_fp32, downloads=tmp_path)


def test_a_local_encoder_gives_unit_vectors_whatever_the_batch(encoder, items, params, cpu_fp32, tmp_path):
    vectors, facts = encode(items, params, cpu_fp32, tmp_path, source="path", path=str(encoder))
    assert (vectors.shape, vectors.dtype) == ((len(items), 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    one = encode(items, params, cpu_fp32, tmp_path, source="path", path=str(encoder), batch_items=1)[0]
    np.testing.assert_allclose(vectors, one, atol=1e-5)
    assert facts == {"source": "path", "id": "model", "revision": "local"}


def test_items_that_share_words_are_near_by_their_own_words(items, params, cpu_fp32, tmp_path):
    vectors, _ = encode(items, params, cpu_fp32, tmp_path, source="tfidf")
    words = [set(text.split()) for text in items["text"]]
    shared = np.array([len(words[9] & other) for other in words])
    cosines = vectors @ vectors[9]
    assert cosines[shared == 1].mean() > cosines[shared == 0].max() + 0.1


def test_no_encoder_is_one_error(items, params, cpu_fp32, tmp_path):
    with pytest.raises(BaseModelError, match=r"encode_text\.path nowhere.*no text encoder.*embedded or tfidf"):
        encode(items, params, cpu_fp32, tmp_path, source="path", path=str(tmp_path / "nowhere"))


def test_vectors_of_another_catalogue_are_refused(items, tmp_path):
    np.save(tmp_path / "vectors.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(ArtifactError, match=r"one row for each of 40 items"):
        read_text_vectors(tmp_path / "vectors.npy", items)
    (tmp_path / "vectors.npy").write_text(json.dumps([1]))
    with pytest.raises(ArtifactError, match="unreadable"):
        read_text_vectors(tmp_path / "vectors.npy", items)
