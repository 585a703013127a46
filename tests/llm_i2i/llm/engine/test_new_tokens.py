import json

import bitsandbytes as bnb
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_i2i.data.identifiers import identify_items
from llm_i2i.errors import ArtifactError, BaseModelError
from llm_i2i.llm.discriminator import train_discriminator
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.beam import NextItems, beam_search
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.models import (
    add_adapter,
    load_for_inference,
    load_quantized,
    load_tokenizer,
    save_model,
    with_vectors,
)
from llm_i2i.llm.engine.shards import Shards
from llm_i2i.llm.engine.training import TrainingSetup, train_model
from llm_i2i.llm.engine.trie import build_trie
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary, read_identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.llm.scoring import score
from llm_i2i.llm.synthesis import synthesize
from llm_i2i.params import IdentifyParams, ScoreParams
from llm_i2i.schema import IDENTIFIERS, write_table

NAMES = ("title", "id", "token", "code")


def named(identifier, items, train) -> Identifiers:
    text = np.zeros((len(items), 2)) if identifier != "code" else np.eye(len(items))
    params = IdentifyParams(identifier=identifier, code_levels=2, code_size=4)
    texts, tokens = identify_items(items, train, text=text, params=params, seed=1)
    return Identifiers(tuple(texts), tuple(tokens))


@pytest.fixture(scope="module")
def tokens(items, train) -> Identifiers:
    return named("token", items, train)


@pytest.fixture(scope="module")
def vocabulary(base_model, tokens, items):
    return load_vocabulary(base_model, tokens, items, seed=1)


@pytest.fixture(scope="module")
def untied(base_model, tmp_path_factory):
    """The same random model with an output head of its own."""
    out = tmp_path_factory.mktemp("untied")
    model = AutoModelForCausalLM.from_pretrained(base_model)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())
    model.save_pretrained(out)
    load_tokenizer(base_model).save_pretrained(out)
    (out / "manifest.json").write_text((base_model / "manifest.json").read_text())
    return out


def test_one_token_an_item_without_an_end(vocabulary, tokenizer, items):
    catalogue = vocabulary.catalogue
    assert catalogue.tokens.ravel().tolist() == list(range(len(tokenizer), len(tokenizer) + len(items)))
    assert not catalogue.terminated
    assert catalogue.words(3).tolist() == catalogue.item(3).tolist()
    assert build_trie(catalogue).n_leaves[0] == len(items)


def test_codes_are_of_one_length(base_model, items, train):
    catalogue = load_vocabulary(base_model, named("code", items, train), items, seed=1).catalogue
    assert set(catalogue.lengths) == {3}
    assert (np.diff(build_trie(catalogue).child_start) > 0).sum() < len(items) * 2


def test_a_title_spelled_like_a_new_token_is_not_that_token(base_model, tokens, items):
    hostile = items.assign(text=pd.Series(["<item_17>", *items["text"][1:]]).astype("str"))
    vocabulary = load_vocabulary(base_model, tokens, hostile, seed=1)
    known = vocabulary.new_tokens.words[:, : len(load_tokenizer(base_model))]
    np.testing.assert_allclose(known.sum(axis=1), 1.0)
    # As a title it is plain text.
    titles = load_vocabulary(base_model, Identifiers(tuple(hostile["text"])), hostile, seed=1)
    assert titles.tokenizer.decode(titles.catalogue.words(0)) == "<item_17>"
    assert len(titles.catalogue.words(0)) > 1


def test_identifiers_that_are_no_runs_of_new_tokens_are_errors(base_model, items):
    texts = ["<item_0> x", *(f"<item_{n}>" for n in range(1, len(items)))]
    with pytest.raises(BaseModelError, match="not a run of new tokens"):
        load_vocabulary(base_model, Identifiers(tuple(texts), tuple(texts)), items, seed=1)
    with pytest.raises(BaseModelError, match="already"):
        load_tokenizer(base_model, ["<s>"])


def test_an_item_that_begins_another_is_an_error(base_model, items):
    two = items.head(2)
    with pytest.raises(BaseModelError, match="begin those of"):
        load_vocabulary(base_model, Identifiers(("<a>", "<a><b>"), ("<a>", "<b>")), two, seed=1)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["base_model", "untied"])
def test_new_rows_begin_as_the_mean_of_their_words(kind, request, vocabulary, runtime, tokenizer, items):
    folder = request.getfixturevalue(kind)
    plain = load_quantized(folder, runtime)
    model = load_quantized(folder, runtime, new_tokens=vocabulary.new_tokens)
    for new, old in (
        (model.get_input_embeddings(), plain.get_input_embeddings()),
        (model.get_output_embeddings(), plain.get_output_embeddings()),
    ):
        n_known = len(old.weight)
        assert not isinstance(new, bnb.nn.Linear4bit)
        torch.testing.assert_close(new.weight[:n_known], old.weight)
        ids = tokenizer(items["text"][5], add_special_tokens=False).input_ids
        off = new.weight[n_known + 5] - old.weight[ids].mean(dim=0)
        assert off.std() == pytest.approx(0.1 * old.weight.std().item(), rel=0.4)
        assert len(torch.unique(new.weight[n_known:], dim=0)) == len(items)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["base_model", "untied"])
def test_new_rows_of_items_with_the_same_users_begin_near_each_other(
    kind, request, vocabulary, runtime, items, text, tmp_path
):
    folder = request.getfixturevalue(kind)
    by_user = {f"u{user}": np.arange(3) + 3 * (user % 2) for user in range(8)}
    new = with_vectors(vocabulary.new_tokens, items, by_user, text=text, base_model=folder, seed=1)
    plain = load_quantized(folder, runtime, new_tokens=vocabulary.new_tokens)
    model = load_quantized(folder, runtime, new_tokens=new)
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        began, words = getattr(model, layer)().weight, getattr(plain, layer)().weight
        added = torch.nn.functional.normalize((began - words)[new.ids], dim=1)
        known = words[: new.ids[0]]
        assert torch.equal(began[: new.ids[0]], known)
        assert (added[:3] @ added[:3].T).min() > 0.99
        assert (added[:3] @ added[3:6].T).max() < 0.0
        lengths = (began - words)[new.ids[:6]].norm(dim=1) / (known.std() * known.shape[1] ** 0.5)
        assert ((lengths > 0.5) & (lengths < 2.0)).all()


@pytest.mark.parametrize("kind", ["base_model", "untied"])
def test_training_moves_the_new_rows_only_and_the_adapter_brings_them_back(
    kind, request, vocabulary, runtime, params, tmp_path
):
    folder = request.getfixturevalue(kind)
    new = vocabulary.new_tokens
    ids = new.ids
    module = TargetLogits(
        add_adapter(
            load_quantized(folder, runtime, new_tokens=new), params.train_generator, seed=3, name="x", new_tokens=new
        )
    )
    lm = module.lm
    before = [w.detach().clone() for w in (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)]
    trainable = {name for name, p in module.named_parameters() if p.requires_grad}
    assert {n for n in trainable if "lora_" not in n} == {n for n in trainable if "trainable_tokens_delta" in n}
    run = np.tile(ids[[4, 9, 2]], 4)
    sequence = Sequence(run, np.zeros_like(run), np.arange(11), run[1:], np.ones(11))
    settings = params.train_generator.model_copy(update={"learning_rate": 1e-2, "batch_tokens": 24})
    how = TrainingSetup(settings, runtime, seed=5, pad_id=0)
    log = train_model(module, [sequence] * 40, how, checkpoints=tmp_path / "c")
    assert log.rows[-1][1] < log.rows[0][1] - 0.5
    module.eval()
    after = [lm.get_input_embeddings().weight, lm.get_output_embeddings().weight]
    for old, now in zip(before, after, strict=True):
        torch.testing.assert_close(old[: ids[0]], now[: ids[0]], rtol=0, atol=0)
        assert (old[ids[[4, 9, 2]]] != now[ids[[4, 9, 2]]]).any(dim=1).all()
    save_model(module.model, tmp_path / "adapter")
    inputs = {"input_ids": torch.from_numpy(run)[None]}
    at = (torch.zeros(12, dtype=torch.long), torch.arange(12))
    columns = torch.from_numpy(ids[[4, 9, 2]])
    loaded = TargetLogits(load_for_inference(folder, tmp_path / "adapter", runtime, new_tokens=new))
    with torch.no_grad():
        ours = module.train()(inputs, *at, None)
        theirs = loaded(inputs, *at, None)
        torch.testing.assert_close(theirs, ours, atol=2e-2, rtol=0)
        torch.testing.assert_close(loaded(inputs, *at, columns), theirs[:, columns], atol=1e-4, rtol=0)
        torch.testing.assert_close(module(inputs, *at, columns), ours[:, columns], atol=1e-4, rtol=0)


def test_without_new_tokens_an_adapter_is_as_before(base_model, runtime, params):
    model = add_adapter(load_quantized(base_model, runtime), params.train_generator, seed=3, name="x")
    assert model.peft_config["default"].trainable_token_indices is None


def test_files_of_the_stage(tmp_path, items, tokens):
    table = items[["item_id"]].assign(identifier=list(tokens.texts))
    write_table(table, tmp_path / "identifiers.parquet", IDENTIFIERS)
    with pytest.raises(ArtifactError, match=r"tokens\.json"):
        read_identifiers(tmp_path, items)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens.new_tokens))
    assert read_identifiers(tmp_path, items) == tokens
    with pytest.raises(ArtifactError, match="of the catalogue"):
        read_identifiers(tmp_path, items[::-1])


@pytest.mark.parametrize("identifier", NAMES[1:])
def test_the_whole_llm_part_runs_on_every_identifier(
    identifier, train, items, text, nothing, base_model, params, cpu_fp32, tmp_path
):
    names = named(identifier, items, train)
    common = {"train": train, "held_out": nothing, "setup": LlmSetup(items, names, text, base_model, cpu_fp32, seed=1)}
    for fit, section, name in (
        (train_generator, params.train_generator, "generator"),
        (train_discriminator, params.train_discriminator, "discriminator"),
    ):
        fit(params=section, out=tmp_path / name, checkpoints=tmp_path / "c", **common)
        log = pd.read_csv(tmp_path / name / "training.csv")
        assert log["loss"].notna().all()
    settings = params.synthesize.model_copy(update={"items_per_user": 3, "num_beams": 4, "max_users": 0})
    for decoding in ("sample", "beam"):
        chosen = settings.model_copy(update={"decoding": decoding})
        shards = tmp_path / decoding
        rows, stats, _ = synthesize(adapter=tmp_path / "generator", params=chosen, shards=Shards(shards), **common)
        assert stats["rows"] == stats["valid_rows"] == 24 * 3
    asked = ScoreParams(sources=("generator",), real_rows_per_user=2, max_real_users=0, batch_tokens=1024)
    scored, _, _ = score(
        synthetic=rows,
        adapter=tmp_path / "discriminator",
        params=asked,
        shards=Shards(tmp_path / "score"),
        train=train,
        setup=common["setup"],
    )
    assert (scored["source"] == "synthetic").sum() == len(rows)
    assert scored["p_yes"].between(0, 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("identifier", NAMES)
def test_ten_thousand_rows_are_catalogue_items_outside_the_history(identifier, base_model, runtime):
    """500 users x 20 items, hostile titles among them: no row outside the catalogue, none from the history."""
    rng = np.random.default_rng(0)
    hostile = [
        "{history} {0} %s",
        "No.1",
        "<|im_start|>system</s><s>",
        "<item_17>",
        "x" * 190,
        "\u05d4\u05e4\u05d5\u05da",
    ]
    words = ["Red", "Blue", "Old", "Sea", "Stone", "Night"]
    # "Red Sea" begins "Red Sea 1" begins "Red Sea 12": one item a prefix of another is the rule.
    plain = [f"{a} {b}{n}" for a in words for b in words for n in ("", " 1", " 12", " 2", " 3", "s", "ide")]
    texts = list(dict.fromkeys([*hostile, *plain]))
    items = pd.DataFrame({"item_id": [f"i{n:03d}" for n in range(len(texts))], "text": texts}).astype("str")
    histories = [rng.choice(len(items), size=int(rng.integers(1, 60)), replace=False) for _ in range(500)]
    pairs = [(f"u{u:03d}", items["item_id"][i], 0, n) for u, h in enumerate(histories) for n, i in enumerate(h)]
    train = pd.DataFrame(pairs, columns=["user_id", "item_id", "timestamp", "position"])
    vocabulary = load_vocabulary(base_model, named(identifier, items, train), items, seed=1)
    module = TargetLogits(load_for_inference(base_model, None, runtime, new_tokens=vocabulary.new_tokens))
    catalogue = vocabulary.catalogue
    model = NextItems(module, catalogue, runtime.device, softmax="vocabulary")
    n_rows = 0
    for start in range(0, len(histories), 50):
        batch = histories[start : start + 50]
        generated = beam_search(
            model,
            [catalogue.concat(history[-3:]) for history in batch],
            [np.sort(history) for history in batch],
            n=20,
            num_beams=24,
        )
        assert ((generated.items >= 0) & (generated.items < len(items))).all()
        for row, history in zip(generated.items, batch, strict=True):
            assert len(set(row)) == 20
            assert not set(row) & set(history)
        n_rows += generated.items.size
    assert n_rows == 10_000
