"""The compact backbone through every LLM stage, on a catalogue of forty items whose lists follow a rule."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from llm_i2i.catalogue import histories_by_user
from llm_i2i.data.identifiers import identify_items
from llm_i2i.errors import ArtifactError, ParamsError
from llm_i2i.evaluation import Protocol
from llm_i2i.evaluation.generator import evaluate_generator
from llm_i2i.evaluation.protocol import require_same_protocol
from llm_i2i.llm.discriminator import train_discriminator
from llm_i2i.llm.engine import training
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.beam import NextItems, beam_search
from llm_i2i.llm.engine.compact import INIT_NOISE, INIT_SCALE, item_vectors
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.loss import logits_over_tokens
from llm_i2i.llm.engine.models import load_for_inference, load_for_training, read_manifest, with_vectors
from llm_i2i.llm.engine.shards import Shards
from llm_i2i.llm.engine.training import EarlyStopping, TrainingSetup, train_model
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.prompts import discriminator_prompt, discriminator_template, generator_prompt, generator_template
from llm_i2i.llm.role import LlmSetup, adapter_sha256
from llm_i2i.llm.scoring import score
from llm_i2i.llm.synthesis import synthesize
from llm_i2i.measures import target_ranks
from llm_i2i.params import EvaluateGeneratorParams, Params, SynthesizeParams, load_params
from llm_i2i.schema import HELD_OUT, SYNTHETIC


@pytest.fixture(scope="module")
def compact(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compact")
    source = params.base_model.model_copy(update={"source": "compact"})
    prepare_base_model(source, seed=7, out=folder, downloads=folder)
    return folder


@pytest.fixture(scope="module")
def cyclic(train, items):
    """Users walk through the catalogue in one order, from where they please."""
    ids = items["item_id"].to_numpy()
    rows = [(f"u{user:02d}", ids[(7 * user + step) % len(ids)], step, step) for user in range(40) for step in range(6)]
    return pd.DataFrame(rows, columns=list(train)).astype(train.dtypes.to_dict())


@pytest.fixture(scope="module")
def identifiers(items, cyclic, text, params):
    token = params.identify.model_copy(update={"identifier": "token"})
    names, new_tokens = identify_items(items, cyclic, text=text, params=token, seed=1)
    return Identifiers(tuple(names), tuple(new_tokens))


@pytest.fixture(scope="module")
def settings(params):
    early = params.train_generator.early_stopping.model_copy(update={"patience": 2, "every": 10.0, "max_users": 10})
    return params.train_generator.model_copy(
        update={
            "template": "generator_bare_v1",
            "learning_rate": 1e-2,
            "epochs": 40,
            "max_windows": 0,
            "early_stopping": early,
        }
    )


@pytest.fixture(scope="module")
def last(cyclic):
    """Every fourth user's last item is held out."""
    return cyclic.groupby("user_id").tail(1)[list(HELD_OUT)].iloc[::4].reset_index(drop=True)


@pytest.fixture(scope="module")
def common(cyclic, last, items, text, identifiers, compact, cpu_fp32):
    torch.set_num_threads(1)
    return {"train": cyclic, "held_out": last, "setup": LlmSetup(items, identifiers, text, compact, cpu_fp32, seed=1)}


@pytest.fixture(scope="module")
def generator(common, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("generator")
    train_generator(**common, params=settings, out=out, checkpoints=out.parent / "checkpoints-generator")
    return out


def test_items_begin_as_factors_of_what_is_trained_on_and_as_nothing_of_those_held_out(
    items, cyclic, text, compact, identifiers
):
    by_user = histories_by_user(cyclic, items)
    tokens = load_vocabulary(compact, identifiers, items, seed=3).new_tokens
    vectors = with_vectors(tokens, items, by_user, text=text, base_model=compact, seed=3).vectors
    assert vectors.shape == (len(items), read_manifest(compact)["hidden_size"])
    fewer = {user: by_user[user] for user in list(by_user)[1:]}
    assert not np.allclose(with_vectors(tokens, items, fewer, text=text, base_model=compact, seed=3).vectors, vectors)


def test_items_that_the_same_users_took_begin_alike(items, text):
    by_user = {f"u{user}": np.arange(3) + 3 * (user % 2) for user in range(8)}
    vectors = item_vectors(items, by_user, text=text, item_init="interactions", size=16, seed=3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (unit[:3] @ unit[:3].T).min() > 0.8
    assert (unit[:3] @ unit[3:6].T).max() < 0.2


def test_items_of_an_empty_view_begin_as_noise_that_tells_them_apart(items):
    vectors = item_vectors(items, {}, text=np.zeros((len(items), 4)), item_init="text+interactions", size=16, seed=3)
    assert vectors.shape == (len(items), 16)
    assert len(np.unique(vectors, axis=0)) == len(items)
    assert np.abs(vectors).max() < 5 * INIT_SCALE * INIT_NOISE


def test_a_model_starts_with_these_vectors_unless_it_is_told_to_start_from_noise(
    items, cyclic, text, compact, identifiers, settings, runtime, params, tmp_path
):
    random = params.base_model.compact.model_copy(update={"item_init": "random"})
    source = params.base_model.model_copy(update={"source": "compact", "compact": random})
    prepare_base_model(source, seed=7, out=tmp_path, downloads=tmp_path)
    rows = {}
    for name, folder in (("factors", compact), ("random", tmp_path)):
        tokens = load_vocabulary(folder, identifiers, items, seed=3).new_tokens
        new = with_vectors(tokens, items, histories_by_user(cyclic, items), text=text, base_model=folder, seed=3)
        model = load_for_training(folder, settings, runtime, seed=1, new_tokens=new)
        rows[name] = model.get_input_embeddings().weight.detach().numpy()[new.ids]
        expected = new.vectors
    assert expected is None
    assert rows["random"].std() == pytest.approx(0.02, rel=0.1)
    assert rows["factors"].std() == pytest.approx(INIT_SCALE, rel=0.1)


@pytest.mark.parametrize("training", [True, False])
def test_half_as_much_is_dropped_of_items_and_the_last_state_as_of_a_layers_output(
    compact, settings, runtime, items, identifiers, training
):
    module, catalogue = _module(compact, settings, runtime, items, identifiers)
    inner, dropped = module.lm.model, {}
    layer = inner.layers[0]
    places = {"items": inner.embed_tokens, "attention": layer.self_attn.o_proj, "mlp": layer.mlp.down_proj,
              "state": inner.norm}  # fmt: skip
    for name, place in places.items():

        def count(_, __, output, name=name):
            dropped[name] = float((output == 0).float().mean())

        place.register_forward_hook(count)
    module.train(training)
    inner(torch.from_numpy(catalogue.tokens[:, 0]).reshape(2, -1))
    rate = read_manifest(compact)["dropout"] if training else 0.0
    expected = {"items": rate / 2, "attention": rate, "mlp": rate, "state": rate / 2}
    assert dropped == pytest.approx(expected, abs=0.03)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(common, settings, tmp_path):
    short = settings.model_copy(update={"epochs": 2.0})
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = tmp_path / name
        setup = replace(common["setup"], seed=seed)
        train_generator(**(common | {"setup": setup}), params=short, out=folder, checkpoints=folder / "checkpoints")
        hashes.append(adapter_sha256(folder))
    assert hashes[0] == hashes[1] != hashes[2]


def test_early_stopping_keeps_the_best_weights_and_never_trains_on_what_is_held_out(generator, settings, cyclic, last):
    searched = pd.read_csv(generator / "early_stopping.csv")
    assert searched["epoch"].iloc[0] == pytest.approx(10.0, abs=0.5)
    log = pd.read_csv(generator / "training.csv")
    targets_per_epoch = len(cyclic) - cyclic["user_id"].nunique() - len(last)
    assert log["targets"].sum() / targets_per_epoch == pytest.approx(searched["epoch"].iloc[-1], abs=1.0)


def test_it_learns_the_rule_and_beats_itself_before_training(
    common, settings, generator, cyclic, items, params, tmp_path
):
    test = cyclic.groupby("user_id").tail(1).reset_index(drop=True)
    history = cyclic.drop(cyclic.groupby("user_id").tail(1).index)
    protocol = Protocol.from_params(params)
    arguments = {"setup": common["setup"], "history": history, "test": test}

    def evaluated(generator, **changes):
        asked = {"arms": ["llm_only"], "max_users": 0, "num_beams": 20, "batch_users": 7, **changes}
        sections = {"train_generator": settings, "evaluate_generator": EvaluateGeneratorParams(**asked)}
        shards = Shards(tmp_path)
        return evaluate_generator(
            **arguments, generator=generator, params=params.model_copy(update=sections), shards=shards
        )

    after, per_user = evaluated(generator)
    before, _ = evaluated(None)
    assert after["n_users"] == 40
    assert after["overall"]["recall@5"] > 0.9
    assert before["overall"]["recall@5"] < 0.5
    # The ranks are those of the metrics, each user's own; another batch size changes nothing.
    assert per_user["user_id"].tolist() == sorted(test["user_id"])
    assert per_user["item_id"].tolist() == test.sort_values("user_id")["item_id"].tolist()
    assert per_user["rank"].between(1, 5).mean() == pytest.approx(after["overall"]["recall@5"])
    pd.testing.assert_frame_equal(evaluated(generator, batch_users=64)[1], per_user)
    # Its query is its prompt: comparable with an index but for that.
    require_same_protocol(after, {"protocol": protocol.model_dump(mode="json"), "protocol_hash": protocol.hash,
                                  "test_sha256": after["test_sha256"]}, same_query=False)  # fmt: skip
    assert after["protocol"]["last_m"] == settings.max_history
    some, chosen = evaluated(generator, max_users=10)
    assert some["n_users"] == 10
    pd.testing.assert_frame_equal(chosen, per_user[per_user["user_id"].isin(chosen["user_id"])].reset_index(drop=True))
    arguments["history"] = history.iloc[:0]
    with pytest.raises(ArtifactError, match="none of 40 users has a history"):
        evaluated(generator)


def _module(compact, settings, runtime, items, identifiers, seed=1):
    vocabulary = load_vocabulary(compact, identifiers, items, seed=seed)
    model = load_for_training(compact, settings, runtime, seed=seed, new_tokens=vocabulary.new_tokens)
    return TargetLogits(model), vocabulary.catalogue


def _lists(catalogue, columns):
    """Training lists; with `columns` a label is an item, else a token id."""
    made = []
    for start in range(20):
        window = (start + np.arange(6)) % 40
        ids = catalogue.concat(window)
        labels = window[1:] if columns else ids[1:]
        made.append(Sequence(ids, np.zeros(6, dtype=np.int64), np.arange(5), labels, np.ones(5)))
    return made


def test_softmax_over_columns_is_the_whole_one_renormalised(compact, settings, runtime, items, identifiers):
    module, catalogue = _module(compact, settings, runtime, items, identifiers)
    module.eval()
    columns = torch.from_numpy(catalogue.tokens[:, 0])
    ids = torch.from_numpy(catalogue.concat(np.array([3, 9, 4])))[None]
    place = torch.tensor([0]), torch.tensor([2])
    with torch.no_grad():
        whole = module({"input_ids": ids}, *place, None).log_softmax(-1)[:, columns]
        among = module({"input_ids": ids}, *place, columns).log_softmax(-1)
    torch.testing.assert_close(among, whole - whole.logsumexp(-1, keepdim=True))


def _fit(compact, settings, runtime, items, identifiers, folder, values, patience=2, **changes):
    """Train with a metric that is given: (module, log, the weights at each evaluation)."""
    module, catalogue = _module(compact, settings, runtime, items, identifiers)
    weights, given = [], iter(values)

    def metric():
        assert not module.training
        weights.append(module.lm.model.embed_tokens.weight.detach().clone())
        return next(given)

    log = train_model(
        module,
        _lists(catalogue, columns=True),
        TrainingSetup(
            settings.model_copy(update={"epochs": 12.0, "batch_tokens": 120, **changes}),
            runtime,
            seed=5,
            pad_id=catalogue.end_id,
            logits=logits_over_tokens(torch.from_numpy(catalogue.tokens[:, 0])),
        ),
        checkpoints=folder,
        early_stopping=EarlyStopping(metric, every=2, patience=patience),
    )
    return module, log, weights


def test_early_stopping_keeps_the_best_weights_and_stops(compact, settings, runtime, items, identifiers, tmp_path):
    values = [0.1, 0.4, 0.3, 0.4, 0.9, 0.9]
    module, log, weights = _fit(compact, settings, runtime, items, identifiers, tmp_path, values)
    assert [value for _, value in log.evaluations] == [0.1, 0.4, 0.3, 0.4]
    assert log.best_step == 4
    assert len(log.rows) == 8
    assert torch.equal(module.lm.model.embed_tokens.weight, weights[1])
    assert not torch.equal(weights[1], weights[3])


def test_a_killed_training_resumes_to_the_same_weights(
    compact, settings, runtime, items, identifiers, tmp_path, monkeypatch
):
    rest = (compact, settings, runtime, items, identifiers)
    values = [0.1, 0.2, 0.5, 0.3, 0.2, 0.1]
    expected, log, _ = _fit(*rest, tmp_path / "whole", values, checkpoint_every=3)
    calls, real = 0, training.batch_nll

    def dies(*arguments):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "batch_nll", dies)
    with pytest.raises(KeyboardInterrupt):
        _fit(*rest, tmp_path / "killed", values, checkpoint_every=3)
    monkeypatch.undo()
    # Step 6 was saved, so the evaluation at step 8 comes again.
    found, resumed, _ = _fit(*rest, tmp_path / "killed", values[3:], checkpoint_every=3)
    assert 0 < len(resumed.tokens_per_s) < len(log.tokens_per_s)
    assert resumed.rows == log.rows
    assert resumed.evaluations == log.evaluations
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name]), name


def test_reading_the_logits_off_equals_beam_search(common, generator, runtime, items, identifiers):
    vocabulary = load_vocabulary(common["setup"].base_model, identifiers, items, seed=1)
    module = TargetLogits(load_for_inference(common["setup"].base_model, generator, runtime))
    prompts = [vocabulary.catalogue.concat(np.arange(start, start + 4)) for start in (0, 11, 30)]
    excluded = [np.arange(start, start + 4) for start in (0, 11, 30)]
    direct = NextItems(module, vocabulary.catalogue, runtime.device, softmax="vocabulary").top(
        prompts, excluded, n=6, num_beams=6
    )
    model = NextItems(module, vocabulary.catalogue, runtime.device, softmax="vocabulary")
    searched = beam_search(model, prompts, excluded, n=6, num_beams=6)
    assert np.array_equal(direct.items, searched.items)
    assert all(not set(row) & set(own) for row, own in zip(direct.items, excluded, strict=True))


def test_fewer_open_items_than_asked_for_leave_gaps(common, generator, runtime, items, identifiers):
    vocabulary = load_vocabulary(common["setup"].base_model, identifiers, items, seed=1)
    module = TargetLogits(load_for_inference(common["setup"].base_model, generator, runtime))
    ranked = NextItems(module, vocabulary.catalogue, runtime.device, softmax="vocabulary")
    found = ranked.top([vocabulary.catalogue.item(0)], [np.arange(38)], n=5, num_beams=5)
    assert set(found.items[0, :2]) == {38, 39}
    assert found.items[0, 2:].tolist() == [-1, -1, -1]


def test_target_ranks_by_hand():
    found = np.array([[4, 7, 2], [1, 2, 3], [9, 8, 5]])
    assert target_ranks(found, np.array([4, 3, 0])).tolist() == [1, 3, 0]


def test_the_whole_chain(common, generator, items, params, tmp_path):
    sampled = SynthesizeParams.model_validate(
        params.synthesize.model_dump() | {"items_per_user": 3, "num_beams": 4, "max_users": 0, "batch_users": 9}
    )
    synthetic, stats, _ = synthesize(**common, adapter=generator, params=sampled, shards=Shards(tmp_path / "shards"))
    assert {c: str(t) for c, t in synthetic.dtypes.items()} == SYNTHETIC
    assert stats["rows"] == 40 * 3
    assert synthetic["held_out"].sum() == 10 * 3
    assert set(synthetic["item_id"]) <= set(items["item_id"])
    taken = set(zip(common["train"]["user_id"], common["train"]["item_id"], strict=True))
    late = synthetic[~synthetic["held_out"]]
    assert not taken & set(zip(late["user_id"], late["item_id"], strict=True))
    assert set(synthetic["adapter_sha256"]) == {adapter_sha256(generator)}
    judge = params.train_discriminator.model_copy(
        update={"template": "discriminator_compact_v1", "epochs": 3.0, "max_histories": 0}
    )
    discriminator = tmp_path / "discriminator"
    train_discriminator(**common, params=judge, out=discriminator, checkpoints=tmp_path / "checkpoints")
    scored, _, _ = score(
        train=common["train"],
        setup=common["setup"],
        synthetic=synthetic,
        adapter=discriminator,
        params=params.score.model_copy(update={"max_real_users": 0}),
        shards=Shards(tmp_path / "shards"),
    )
    assert scored["p_yes"].between(0, 1).all()
    assert set(scored["source"]) == {"real", "synthetic", "held_out"}


def test_the_templates_are_in_its_vocabulary(compact, items, identifiers):
    tokenizer = load_vocabulary(compact, identifiers, items, seed=1).tokenizer
    prompt = generator_prompt(tokenizer, generator_template("generator_bare_v1"))
    assert prompt.prefix.tolist() == [tokenizer.bos_token_id]
    asked = discriminator_prompt(tokenizer, discriminator_template("discriminator_compact_v1"))
    ids = np.concatenate([asked.prefix, asked.between, asked.suffix, [asked.yes_id, asked.no_id]])
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.convert_ids_to_tokens([asked.yes_id, asked.no_id]) == ["Yes", "No"]


def test_compact_needs_tokens_as_identifiers(params, tmp_path):
    values = params.model_dump(mode="json", by_alias=True)
    values["profile"], values["identify"]["identifier"] = "", "title"
    values["base_model"]["source"] = "compact"
    values["evaluate_generator"]["arms"] = ["llm_only"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match="identifier token"):
        load_params(path)
    values["identify"]["identifier"] = "token"
    assert Params.model_validate(values).base_model.source == "compact"
