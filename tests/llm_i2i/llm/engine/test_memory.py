"""The computed GPU memory against what can be counted without one."""

import bitsandbytes as bnb
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llm_i2i.errors import ParamsError
from llm_i2i.llm.engine.memory import BF16, FP32, KNOWN, NF4, model_config, training_memory
from llm_i2i.llm.engine.models import add_adapter
from llm_i2i.params import LlmTraining, Params


@pytest.fixture(scope="module")
def training(params: Params) -> LlmTraining:
    changes = {"lora_r": 8, "optimizer": "paged_adamw_8bit", "gradient_checkpointing": False, "lora_dropout": 0.0}
    return params.train_generator.model_copy(update=changes)


CONFIG = LlamaConfig(
    vocab_size=100, hidden_size=256, intermediate_size=688, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip


def test_weights_and_adapter_by_hand(training):
    found = training_memory(CONFIG, training, tokens=64, n_new=10)
    shapes = [(256, 256), (128, 256), (128, 256), (256, 256), (688, 256), (688, 256), (256, 688)]
    linear = 2 * sum(out * into for out, into in shapes)
    norms = 5 * 256
    assert found.base == pytest.approx(NF4 * linear + BF16 * (110 * 256 + norms))
    trained = 2 * sum(8 * (out + into) for out, into in shapes) + 10 * 256
    assert found.adapter == pytest.approx(trained * (4 + 4 + 2 * (1 + 4 / 256)))
    assert found.logits == 64 * 110 * (2 * BF16 + 3 * FP32)
    assert found.total > found.allocated == found.base + found.adapter + found.activations + found.logits


def test_nf4_is_what_bitsandbytes_holds():
    weight = bnb.nn.Params4bit(torch.randn(512, 1024), requires_grad=False, quant_type="nf4").to("cpu")
    state = weight.quant_state
    scales = [state.absmax, state.state2.absmax]
    held = sum(t.numel() * t.element_size() for t in (weight.data, *scales))
    assert held == pytest.approx(NF4 * 512 * 1024, rel=1e-3)


@pytest.mark.parametrize("tokens", [64, 256])
def test_activations_are_what_autograd_keeps(training, tokens):
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).to(torch.bfloat16)
    inner = add_adapter(model, training, seed=1, name="x").get_base_model().model
    own = {p.untyped_storage().data_ptr() for p in inner.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        inner(input_ids=torch.randint(100, (2, tokens // 2)), use_cache=False)
    found = training_memory(CONFIG, training, tokens=tokens)
    largest, gradients = BF16 * 688 * 256, 3 * FP32 * 688 * tokens
    assert found.activations - largest - gradients == pytest.approx(sum(kept.values()), rel=0.15)


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all(training):
    whole = training_memory(CONFIG, training, tokens=64).activations
    checkpointed = training.model_copy(update={"gradient_checkpointing": True})
    less = training_memory(CONFIG, checkpointed, tokens=64).activations
    # Of whatever is kept the gradients of one layer stand beside it.
    once = BF16 * 688 * 256 + 64 * 3 * FP32 * 688
    assert less - once == pytest.approx((whole - once) / 2 + 64 * 2 * BF16 * 256)


def test_known_models_have_their_published_sizes():
    for name, millions in zip(KNOWN, (6738, 134), strict=True):
        with torch.device("meta"):
            assert LlamaForCausalLM(LlamaConfig(**KNOWN[name])).num_parameters() // 1_000_000 == millions


def test_a_path_without_a_configuration_and_a_model_trained_whole_are_errors(params, tmp_path):
    path = params.base_model.model_copy(update={"source": "path", "path": str(tmp_path)})
    with pytest.raises(ParamsError, match="no configuration that can be read"):
        model_config(path)
    with pytest.raises(ParamsError, match="not quantized"):
        model_config(params.base_model.model_copy(update={"source": "compact"}))
