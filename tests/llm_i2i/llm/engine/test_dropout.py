"""Dropout of the token embeddings and the last states of an LLM; of the compact backbone: test_compact.py."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig

from llm_i2i.data.identifiers import identify_items
from llm_i2i.llm.engine.dropout import add_embedding_dropout
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.models import load_for_training
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary

IDS = torch.arange(60).reshape(3, 20)


def llama():
    return LlamaConfig(vocab_size=60, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)


def gpt2():
    return GPT2Config(vocab_size=60, n_embd=64, n_layer=1, n_head=2, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)


def gemma():
    """Its embeddings are scaled and its logits capped, so that they are not the head's."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return Gemma2Config(vocab_size=60, final_logit_softcapping=0.05, **sizes, **heads)


def zeros(module, inputs):
    """Shares of zeros in the embeddings and last states that the model goes on with."""
    lm, found = module.lm, {}
    lm.get_input_embeddings().register_forward_hook(
        lambda _, __, output: found.update(embeddings=float((output == 0).float().mean()))
    )
    lm.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: found.update(states=float((given[0] == 0).float().mean()))
    )
    everywhere = torch.ones_like(inputs).nonzero(as_tuple=True)
    return module({"input_ids": inputs}, *everywhere, None), found


@pytest.mark.parametrize("config", [llama(), gpt2(), gemma()], ids=["llama", "gpt2", "gemma"])
@pytest.mark.parametrize("training", [True, False])
def test_the_share_asked_for_is_dropped_in_training_only(config, training):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    before, nothing = zeros(TargetLogits(model), IDS)
    assert nothing == pytest.approx({"embeddings": 0.0, "states": 0.0}, abs=0.02)
    add_embedding_dropout(model, 0.3)
    module = TargetLogits(model)
    assert module.plain_head == (config.model_type != "gemma2")
    after, dropped = zeros(module.train(training), IDS)
    assert dropped == pytest.approx(dict.fromkeys(("embeddings", "states"), 0.3 * training), abs=0.04)
    assert torch.equal(before, after) != training


def test_an_adapter_with_item_tokens_drops_them(base_model, runtime, params, items, train):
    as_tokens = params.identify.model_copy(update={"identifier": "token"})
    texts, names = identify_items(items, train, text=np.zeros((len(items), 2)), params=as_tokens, seed=1)
    vocabulary = load_vocabulary(base_model, Identifiers(tuple(texts), tuple(names)), items, seed=1)
    settings = params.train_generator.model_copy(update={"embedding_dropout": 0.3})
    loaded = [load_for_training(base_model, chosen, runtime, seed=1, new_tokens=vocabulary.new_tokens)
              for chosen in (settings, params.train_generator)]  # fmt: skip
    tokens = torch.from_numpy(vocabulary.catalogue.tokens[:, 0])[:40].reshape(2, 20)
    with torch.no_grad():
        for model, rate in zip(loaded, (0.3, 0.0), strict=True):
            _, dropped = zeros(TargetLogits(model).train(), tokens)
            assert dropped == pytest.approx({"embeddings": rate, "states": rate}, abs=0.04)
