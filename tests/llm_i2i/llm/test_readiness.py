"""What a base model must bring is asked for in stage base_model."""

import json
import sys
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING

from llm_i2i.errors import BaseModelError, ParamsError
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.models import context_length, prompt_length
from llm_i2i.llm.readiness import check_base_model
from tests.llm_i2i.llm.families import byte_tokenizer, character_tokenizer

TEMPLATES = {"generator": "generator_v1", "discriminator": "discriminator_v1"}
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
TEXT = {**SIZES, "max_position_embeddings": 777, "sliding_window": 512}
KINDS = {
    "llama": ({**SIZES, "max_position_embeddings": 555}, 555, 555),
    "gpt2": ({"vocab_size": 300, "n_positions": 333, "n_embd": 32, "n_layer": 1, "n_head": 2}, 333, 333),
    "gptj": (
        {"vocab_size": 300, "n_positions": 444, "n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8},
        444,
        444,
    ),
    "gemma2": (TEXT, 777, 512),
    "gemma3": ({"text_config": TEXT}, 777, 512),
    "mistral": ({**SIZES, "max_position_embeddings": 999, "sliding_window": None}, 999, 999),
}
REFUSED = {
    "bloom": ({"n_layer": 2, "n_head": 4, "hidden_size": 32}, "no positions"),
    "mpt": ({"d_model": 32, "n_heads": 2, "n_layers": 1, "max_seq_len": 222}, "no positions"),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 1}, "carries a state"),
    "falcon": ({"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "alibi": True}, "ALiBi"),
    "qwen3_next": ({**SIZES, "num_experts": 2, "num_experts_per_tok": 1}, "carries a state"),
    "bart": ({"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}, "no positions"),
}


def folder_of(kind: str, options: dict, folder: Path, tokenizer=None) -> Path:
    """A model folder of an architecture: its weights are never read."""
    config = CONFIG_MAPPING[kind](**options)
    config.architectures = None
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture
def prepare(tmp_path, params):
    def run(folder: Path) -> Path:
        source = params.base_model.model_copy(update={"source": "path", "path": str(folder)})
        prepare_base_model(source, seed=0, out=tmp_path / "out", downloads=tmp_path)
        return tmp_path / "out"

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_context_length_by_whatever_name(kind, prepare, tmp_path):
    options, positions, tokens = KINDS[kind]
    out = prepare(folder_of(kind, options, tmp_path / "model"))
    assert (context_length(out), prompt_length(out)) == (positions, tokens)
    check_base_model(out, **TEMPLATES)


@pytest.mark.parametrize(
    ("changes", "known", "expected"),
    [
        ({"max_seq_len": 111}, None, 111), ({"seq_length": 222}, 5, 222),
        ({"n_ctx": 333, "seq_length": None}, None, 333),
        ({}, 4444, 4444), ({}, None, sys.maxsize), ({"max_seq_len": 0, "n_positions": -1}, None, sys.maxsize),
    ],
)  # fmt: skip
def test_a_configuration_without_positions(changes, known, expected, base_model, tmp_path):
    tokenizer = byte_tokenizer()
    if known:
        tokenizer.model_max_length = known
    folder = folder_of("bloom", {"n_layer": 2, "n_head": 4, "hidden_size": 32}, tmp_path / "model", tokenizer)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "manifest.json").write_text(json.dumps({"source": "path", "id": "x", "path": str(folder)}))
    assert context_length(tmp_path) == expected


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_read_several_questions_at_once_is_refused(kind, prepare, tmp_path):
    options, found = REFUSED[kind]
    with pytest.raises(BaseModelError, match=found) as caught:
        prepare(folder_of(kind, options, tmp_path / "model"))
    assert f"type {kind}" in caught.value.where
    assert "choose another `base_model`" in caught.value.fix


@pytest.mark.parametrize(
    ("tokenizer", "options", "found"),
    [
        (character_tokenizer(feed=False, eos=False), {}, "neither a line feed nor an end"),
        (character_tokenizer(letters="abc"), {}, "knows every word"),
        (byte_tokenizer(), {"vocab_size": 100}, "the model knows 100 tokens"),
        (byte_tokenizer(), {"max_position_embeddings": 100}, "fewer than the 100"),
    ],
)
def test_what_would_stop_a_training_stops_here(tokenizer, options, found, prepare, tmp_path):
    out = prepare(folder_of("llama", {**SIZES, **options}, tmp_path / "model", tokenizer))
    with pytest.raises(BaseModelError, match=found):
        check_base_model(out, **TEMPLATES)


@pytest.mark.parametrize(
    "damage", ["[]", "{", '{"model_type": 3}', '{"model_type": "llama", "vocab_size": "x"}', "\x00"]
)
def test_a_damaged_configuration_is_one_error(damage, prepare, tmp_path):
    folder = folder_of("llama", SIZES, tmp_path / "model")
    (folder / "config.json").write_text(damage)
    with pytest.raises(BaseModelError, match="no causal LM"):
        prepare(folder)


@pytest.mark.parametrize("damage", ["[]", "{", "null", None])
def test_a_damaged_tokenizer_is_one_error(damage, prepare, tmp_path):
    folder = folder_of("llama", SIZES, tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink() if damage is None else path.write_text(damage)
    out = prepare(folder)
    with pytest.raises(BaseModelError, match="tokenizer"):
        check_base_model(out, **TEMPLATES)


@pytest.mark.parametrize("kind", ["llama", "of_its_own"])
def test_code_that_comes_with_a_model_never_runs(kind, prepare, tmp_path):
    folder = folder_of("llama", KINDS["llama"][0], tmp_path / "model")
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    for name in ("config.json", "tokenizer_config.json"):
        known = json.loads((folder / name).read_text(encoding="utf-8"))
        own = {"auto_map": {key: f"own.{key}" for key in names}}
        own |= {"model_type": kind} if name == "config.json" else {"tokenizer_class": "OwnTokenizer"}
        (folder / name).write_text(json.dumps(known | own), encoding="utf-8")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(BaseModelError, match="custom code"):
        check_base_model(prepare(folder), **TEMPLATES)
    assert not (tmp_path / "ran").exists()


def test_templates_that_do_not_exist_stop_here(base_model):
    check_base_model(base_model, **TEMPLATES)
    with pytest.raises(ParamsError, match="no template"):
        check_base_model(base_model, **{**TEMPLATES, "generator": "generator_v9"})
