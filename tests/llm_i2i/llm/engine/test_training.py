import dataclasses

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from llm_i2i.errors import ArtifactError, TrainingError
from llm_i2i.llm.engine import training
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.models import add_adapter, load_for_inference, load_for_training, load_quantized, save_model
from llm_i2i.llm.engine.training import TrainingSetup, plan_steps, train_model
from llm_i2i.llm.role import adapter_sha256


def sequences(n: int = 24) -> list[Sequence]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        # A pattern that can be learnt: the same three tokens over and over.
        ids = np.tile([40, 90, 140], int(rng.integers(3, 8)))
        positions = np.arange(len(ids) - 1)
        made.append(Sequence(ids, np.zeros_like(ids), positions, ids[1:], np.ones(len(positions))))
    return made


@pytest.fixture
def settings(params):
    return params.train_generator.model_copy(update={"batch_tokens": 64, "checkpoint_every": 2, "learning_rate": 5e-3})


def fresh(base_model, runtime, settings) -> TargetLogits:
    return TargetLogits(load_for_training(base_model, settings, runtime, seed=3))


def fit(base_model, runtime, settings, folder):
    module = fresh(base_model, runtime, settings)
    log = train_model(
        module, sequences(), TrainingSetup(settings, runtime, seed=5, pad_id=0), checkpoints=folder / "checkpoints"
    )
    save_model(module.model, folder / "adapter")
    return adapter_sha256(folder / "adapter"), log


def test_base_is_nf4_with_double_quantization_and_only_the_adapter_trains(base_model, runtime, settings):
    # Before any forward pass: on CPUs with AVX512-BF16 the first one outside training packs the weights anew, and
    # none after it has gradients. The stages never meet that: on a CPU they unpack the weights.
    module = add_adapter(load_quantized(base_model, runtime), settings, seed=3, name="random-llama")
    quantized = [m for m in module.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(quantized) == 14  # 7 linear layers in each of 2 blocks
    assert {m.weight.quant_state.quant_type for m in quantized} == {"nf4"}
    assert all(m.weight.quant_state.nested for m in quantized)
    trainable = {name for name, p in module.named_parameters() if p.requires_grad}
    assert len(trainable) == 28
    assert all("lora_" in name for name in trainable)


def test_the_cpu_trains_on_unpacked_weights_of_the_same_values(base_model, runtime, settings):
    """Logits and gradients are those of the 4-bit base, which in train mode unpacks at every product."""
    ids = torch.tensor([[40, 90, 140, 40, 90, 140, 41, 91]])
    found = []
    for model in (
        load_for_training(base_model, settings, runtime, seed=3),
        add_adapter(load_quantized(base_model, runtime, training=True), settings, seed=3, name="x"),
    ):
        torch.manual_seed(0)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.5)
        model.train()
        shown = model(input_ids=ids, labels=ids)
        shown.loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
        found.append((any(isinstance(m, bnb.nn.Linear4bit) for m in model.modules()), shown.logits, gradients))
    (in_4_bit, logits, gradients), (_, logits_4_bit, gradients_4_bit) = found
    assert not in_4_bit
    torch.testing.assert_close(logits, logits_4_bit)
    torch.testing.assert_close(gradients, gradients_4_bit)


def test_loss_falls_and_plain_peft_loads_the_adapter(base_model, runtime, settings, tmp_path):
    _, log = fit(base_model, runtime, settings, tmp_path)
    assert log.rows[-1][1] < log.rows[0][1] - 0.3
    model = PeftModel.from_pretrained(load_quantized(base_model, runtime), str(tmp_path / "adapter"))
    assert model.peft_config["default"].base_model_name_or_path == "random-llama"
    ours = TargetLogits(load_for_inference(base_model, tmp_path / "adapter", runtime))
    ids = torch.tensor([[40, 90, 140, 40]])
    with torch.no_grad():
        theirs = model.train()(input_ids=ids).logits[0].float()  # train mode: no repacked kernel
        merged = ours({"input_ids": ids}, torch.zeros(4, dtype=torch.long), torch.arange(4), None)
    torch.testing.assert_close(merged, theirs, atol=2e-2, rtol=0)


def test_a_killed_training_ends_at_the_same_adapter(base_model, runtime, settings, tmp_path, monkeypatch):
    expected, log = fit(base_model, runtime, settings, tmp_path / "whole")
    seen = 0
    real = training.batch_nll

    def dies(*arguments):
        nonlocal seen
        seen += 1
        if seen == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "batch_nll", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(base_model, runtime, settings, tmp_path / "killed")
    monkeypatch.undo()
    sha256, resumed = fit(base_model, runtime, settings, tmp_path / "killed")
    assert len(resumed.tokens_per_s) < len(log.tokens_per_s), "the second run resumed"
    assert sha256 == expected
    assert resumed.rows == log.rows


def test_a_checkpoint_of_another_training_or_a_torn_one_is_discarded(base_model, runtime, settings, tmp_path):
    expected, _ = fit(base_model, runtime, settings, tmp_path / "a")
    state = tmp_path / "a" / "checkpoints" / "state.pt"
    assert state.is_file()
    other = settings.model_copy(update={"learning_rate": 1e-3})
    sha256, log = fit(base_model, runtime, other, tmp_path / "a")
    assert len(log.tokens_per_s) == len(log.rows)
    assert sha256 != expected
    state.write_bytes(b"torn")
    sha256, _ = fit(base_model, runtime, settings, tmp_path / "a")
    assert sha256 == expected


def test_accumulation_changes_the_adapter_only_by_rounding(base_model, runtime, settings, tmp_path):
    """One step over all sequences: in one batch, or in several micro-batches normalised by the step's weights."""
    adapters = []
    # Of one length, so that one batch can hold them all; weights that differ between the micro-batches.
    alike = [s for s in sequences(80) if len(s) == 15]
    weighted = [dataclasses.replace(s, weights=s.weights * (1 + i % 4)) for i, s in enumerate(alike)]
    for batch_tokens, accumulation in ((10_000, 1), (40, 64)):
        changed = settings.model_copy(update={"batch_tokens": batch_tokens, "accumulation": accumulation})
        module = fresh(base_model, runtime, changed)
        log = train_model(
            module, weighted, TrainingSetup(changed, runtime, seed=5, pad_id=0), checkpoints=tmp_path / "none"
        )
        assert len(log.rows) == 1
        adapters.append((log.rows[0][1], torch.cat([p.flatten() for p in module.parameters() if p.requires_grad])))
    assert adapters[0][0] == pytest.approx(adapters[1][0], abs=1e-4)
    torch.testing.assert_close(adapters[0][1], adapters[1][1], atol=2e-3, rtol=0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 4), st.floats(0.2, 3.0))
def test_the_plan_visits_sequences_evenly(lengths, accumulation, epochs):
    base = {"batch_tokens": 60, "accumulation": accumulation, "epochs": epochs}
    steps = plan_steps(lengths, PlanOnly(**base), seed=0)
    assert steps == steps_equal(plan_steps(lengths, PlanOnly(**base), seed=0), steps)
    assert all(1 <= len(step) <= accumulation for step in steps)
    counts = np.bincount(np.concatenate([b for s in steps for b in s]), minlength=len(lengths))
    assert counts.max() - counts.min() <= 1


class PlanOnly:
    """The three settings the plan reads, with values outside what a whole section allows to vary."""

    def __init__(self, **values):
        self.__dict__.update(values)


def steps_equal(found, expected):
    """`expected` itself if `found` is the same plan: numpy arrays have no plain equality."""
    same = all(np.array_equal(a, b) for s, t in zip(found, expected, strict=True) for a, b in zip(s, t, strict=True))
    return expected if same else found


def test_an_adapter_of_another_model_is_an_error(base_model, runtime, tmp_path):
    with pytest.raises(ArtifactError, match="no adapter"):
        load_for_inference(base_model, tmp_path, runtime)


@pytest.mark.parametrize(
    ("change", "step"), [({"learning_rate": 1e30}, 2), ({"learning_rate": 1e36}, 2), ({"accumulation": 4}, 1)]
)
def test_a_training_that_diverges_stops_at_once_and_says_where(
    base_model, runtime, settings, tmp_path, monkeypatch, change, step
):
    """By its learning rate, or by a loss that is no number in the last micro-batch of the first step."""
    changed = settings.model_copy(update={"warmup_share": 0.0, "epochs": 3.0, **change})
    if "accumulation" in change:
        seen = []
        real = training.batch_nll

        def once(*arguments):
            seen.append(real(*arguments))
            return seen[-1] * (float("nan") if len(seen) == 4 else 1.0)

        monkeypatch.setattr(training, "batch_nll", once)
    module = fresh(base_model, runtime, changed)
    how = TrainingSetup(changed, runtime, seed=5, pad_id=0, section="train_discriminator")
    with pytest.raises(TrainingError, match=rf"train_discriminator, step {step} of \d+.*learning rate") as caught:
        train_model(module, sequences(), how, checkpoints=tmp_path)
    assert f"lower train_discriminator.learning_rate (it is {changed.learning_rate:g})" in str(caught.value)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(base_model, runtime, settings, tmp_path):
    module = fresh(base_model, runtime, settings)
    trained = [p for p in module.parameters() if p.requires_grad]
    trained[3].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"step 1 of .*gradient norm"):
        train_model(module, sequences(), TrainingSetup(settings, runtime, seed=5, pad_id=0), checkpoints=tmp_path)
    assert all(p.isfinite().all() for p in trained)


def test_weights_that_the_last_step_breaks_are_not_returned(base_model, runtime, settings, tmp_path):
    """No loss is read after the last step."""
    one_step = settings.model_copy(update={"accumulation": 64, "learning_rate": 1e36, "weight_decay": 1e36})
    module = fresh(base_model, runtime, one_step)
    with pytest.raises(TrainingError, match="after step 1: weights that are not finite"):
        train_model(module, sequences(), TrainingSetup(one_step, runtime, seed=5, pad_id=0), checkpoints=tmp_path)
